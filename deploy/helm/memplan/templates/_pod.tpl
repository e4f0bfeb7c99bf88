{{/* What the pods of all components have: (dict "root" . "component" "estimator" "values" ...). */}}

{{- define "memplan.pod.metadata" -}}
{{- $root := .root -}}
labels:
  {{- include "memplan.selectorLabels" (list $root .component) | nindent 2 }}
  {{- with mustMerge (dict) .values.podLabels $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $scraped := and $root.Values.metrics.podAnnotations (not $root.Values.metrics.serviceMonitor.enabled) }}
{{- if or $scraped .values.podAnnotations }}
annotations:
  {{- if $scraped }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ $root.Values.ports.metrics | quote }}
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "memplan.pod.placement" -}}
{{- $root := .root -}}
securityContext:
  {{- include "memplan.podSecurityContext" $root | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "memplan.selectorLabels" (list $root .component) | nindent 8 }}
{{- end }}
