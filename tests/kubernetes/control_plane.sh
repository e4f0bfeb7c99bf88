#!/usr/bin/env bash
# Builds kube-apiserver, kube-controller-manager and kubectl into a folder, from the source package of
# Debian 12, and leaves them there for the next time: tests/kubernetes/control_plane.sh FOLDER
#
# As root it installs Go and etcd. The machine's list of package sources stays as it is.
set -euo pipefail

version=1.20.2
packages=(etcd-server golang-go golang-github-modern-go-reflect2-dev dpkg-dev)
reflect=/usr/share/gocode/src/github.com/modern-go/reflect2
mkdir -p "${1:?which folder?}"
folder=$(realpath "$1")

missing=()
for program in kube-apiserver kube-controller-manager kubectl; do
    test -x "$folder/$program" || missing+=("./cmd/$program")
done
if test ${#missing[@]} -eq 0 && command -v etcd >/dev/null; then
    exit 0
fi
. /etc/os-release
if test "$ID $VERSION_ID" != "debian 12"; then
    echo "It takes Debian 12, whose source package has all of Kubernetes." >&2
    exit 1
fi
if ! dpkg --status "${packages[@]}" >/dev/null 2>&1; then
    test "$(id -u)" = 0 || { echo "Install ${packages[*]}, or run this as root." >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi
test ${#missing[@]} -gt 0 || exit 0

build=$folder/build
mkdir -p "$build/lists" "$build/state/partial" "$build/src/k8s.io"
# The machine's own sources, for source packages.
for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    test -s $list || continue
    sed 's/^Types: deb$/Types: deb-src/; s/^deb /deb-src /' $list > "$build/lists/$(basename $list)"
done
apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$build/lists"
    -o "Dir::State::lists=$build/state" -o APT::Sandbox::User="")
cd "$build"
source=$build/src/k8s.io/kubernetes
if ! test -d "$source"; then
    "${apt[@]}" update
    "${apt[@]}" source --download-only kubernetes
    dpkg-source --no-check --extract kubernetes_*.dsc unpacked >/dev/null
    # The one in the package is too old for Debian's Go, and the API server crashes with it.
    rm -r unpacked/vendor/github.com/modern-go/reflect2
    cp -r $reflect unpacked/vendor/github.com/modern-go/reflect2
    mv unpacked "$source"
fi

flags=
for package in component-base/version client-go/pkg/version; do
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitVersion=v$version"
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMajor=${version%%.*}"
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMinor=20"
done
cd "$source"
export GOPATH=$build GOCACHE=$build/cache GO111MODULE=off CGO_ENABLED=0
schemas=pkg/generated/openapi/zz_generated.openapi
if ! test -f $schemas.go; then # the package does not have what its own build generates
    go build -o "$build/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    types=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin vendor/k8s.io/*/ |
        xargs -n1 dirname | grep -Ev 'code-generator|sample-apiserver|kube-openapi' |
        sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
    "$build/openapi-gen" -i "$types" -p "k8s.io/kubernetes/$(dirname $schemas)" -O "$(basename $schemas)" \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r /dev/null
fi
nice go build -ldflags "-s -w $flags" -o "$build/" "${missing[@]}"
for one in "${missing[@]}"; do
    mv "$build/$(basename "$one")" "$folder/"
done
rm -rf "$build"
