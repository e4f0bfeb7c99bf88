{{/* The pod of a server: (dict "root" . "component" "estimator" "values" .Values.estimator
     "image" "memplan:0.1.0" "settings" (dict) "limits" (dict)), where settings and limits are those
     that the chart itself adds. */}}

{{- define "memplan.server.pod" -}}
{{- $root := .root }}
{{- $values := .values -}}
metadata:
  {{- include "memplan.pod.metadata" . | nindent 2 }}
spec:
  serviceAccountName: {{ include "memplan.serviceAccountName" $root }}
  automountServiceAccountToken: false
  # A Service called memplan would set MEMPLAN_PORT and others like it, which are not settings.
  enableServiceLinks: false
  # Longer than the preStop pause and MEMPLAN_DRAIN_TIME together.
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- include "memplan.pod.placement" . | nindent 2 }}
  containers:
    - name: server
      image: {{ .image }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      env:
        {{- include "memplan.server.env" . | nindent 8 }}
      ports:
        - name: grpc
          containerPort: {{ $root.Values.ports.grpc }}
        - name: metrics
          containerPort: {{ $root.Values.ports.metrics }}
      {{- include "memplan.server.probes" $root | nindent 6 }}
      lifecycle:
        preStop:
          # Clients learn of the new set of addresses before this one stops answering.
          sleep:
            seconds: 5
      resources:
        {{- with $values.resources.requests }}
        requests:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with mustMerge (dict) .limits (default dict $values.resources.limits) }}
        limits:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      securityContext:
        {{- include "memplan.containerSecurityContext" $root | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /var/lib/memplan
        - name: tmp
          mountPath: /tmp
        {{- if $root.Values.tls.existingSecret }}
        - name: tls
          mountPath: /etc/memplan/tls
          readOnly: true
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    # Timelines that were worked out; a pod that loses them works them out again.
    - name: data
      emptyDir:
        sizeLimit: {{ $values.dataSize }}
    - name: tmp
      emptyDir:
        sizeLimit: 512Mi
    {{- with $root.Values.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Settings as environment variables: those of the values, then those that the chart makes. */}}
{{- define "memplan.server.env" -}}
{{- $root := .root }}
{{- $settings := mustMergeOverwrite (dict) (default dict .values.settings) .settings }}
{{- $_ := set $settings "listen" (printf "0.0.0.0:%v" $root.Values.ports.grpc) }}
{{- $_ := set $settings "metricsPort" $root.Values.ports.metrics }}
{{- if $root.Values.tls.existingSecret }}
{{- $_ := set $settings "tlsCert" "/etc/memplan/tls/tls.crt" }}
{{- $_ := set $settings "tlsKey" "/etc/memplan/tls/tls.key" }}
{{- if and $settings.profiler (not $settings.profilerCa) }}
{{- $_ := set $settings "profilerCa" "/etc/memplan/tls/ca.crt" }}
{{- end }}
{{- if $root.Values.tls.clientCertificates }}
{{- $_ := set $settings "tlsClientCa" "/etc/memplan/tls/ca.crt" }}
{{- end }}
{{- end }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
- name: MEMPLAN_{{ snakecase $name | upper }}
  value: {{ include "memplan.setting" $value | quote }}
{{- end }}
{{- end }}
{{- if $root.Values.profileStore.existingSecret }}
- name: MEMPLAN_PROFILE_STORE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $root.Values.profileStore.existingSecret }}
      key: {{ $root.Values.profileStore.key }}
{{- end }}
# Which machine a GPU is in, in the metrics.
- name: MEMPLAN_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "memplan.server.probes" -}}
{{- $port := .Values.ports.grpc -}}
startupProbe:
  {{- include "memplan.server.probe" (list . "") | nindent 2 }}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  {{- include "memplan.server.probe" (list . "memplan.v1.MemoryPlanner") | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  {{- include "memplan.server.probe" (list . "") | nindent 2 }}
  periodSeconds: 20
  timeoutSeconds: 10
{{- end }}

{{/* The kubelet's gRPC probe speaks no TLS: there it can only see whether the port is open, which it
     is from when the server answers until it drains. */}}
{{- define "memplan.server.probe" -}}
{{- $root := index . 0 }}
{{- $service := index . 1 }}
{{- if $root.Values.tls.existingSecret -}}
tcpSocket:
  port: grpc
{{- else -}}
grpc:
  port: {{ $root.Values.ports.grpc }}
  {{- with $service }}
  service: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
