{{/* Names, labels and values that several templates write. */}}

{{- define "memplan.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "memplan.fullname" -}}
{{- $name := include "memplan.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of a component, given as (list . "profiler"). The estimator is what users call: it has no suffix. */}}
{{- define "memplan.componentName" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- include "memplan.fullname" $root }}{{ if ne $component "estimator" }}-{{ $component }}{{ end }}
{{- end }}

{{/* (list . "estimator") */}}
{{- define "memplan.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "memplan.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* (list . "estimator") */}}
{{- define "memplan.labels" -}}
{{- $root := index . 0 -}}
{{ include "memplan.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (list . own suffix), where own are the values of a component's image that win */}}
{{- define "memplan.image" -}}
{{- $root := index . 0 }}
{{- $own := index . 1 }}
{{- $all := $root.Values.image }}
{{- $repository := default $all.repository $own.repository }}
{{- $digest := $own.digest }}
{{- $tag := default (printf "%s%s" (default $root.Chart.AppVersion $all.tag) (index . 2)) $own.tag }}
{{- if $digest }}{{ $repository }}@{{ $digest }}{{ else }}{{ $repository }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "memplan.serviceAccountName" -}}
{{- $made := ternary (include "memplan.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $made .Values.serviceAccount.name }}
{{- end }}

{{/* gRPC target of the pods of a component: (list . "estimator") */}}
{{- define "memplan.target" -}}
{{- $root := index . 0 }}
{{- $host := printf "%s.%s.svc.%s" (include "memplan.componentName" .) $root.Release.Namespace $root.Values.clusterDomain }}
{{- printf "dns:///%s:%v" $host $root.Values.ports.grpc }}
{{- end }}

{{/* Meets the Pod Security Standard "restricted"; 10001 is the user of the image. */}}
{{- define "memplan.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "memplan.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A setting as the server reads it: numbers without exponents, lists with commas. */}}
{{- define "memplan.setting" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}
