{{/* Rules of network policies. */}}

{{/* Ingress to a named port: (list "grpc" peers) */}}
{{- define "memplan.network.port" -}}
- ports:
    - port: {{ index . 0 }}
  {{- with index . 1 }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "memplan.network.dns" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{- define "memplan.network.profileStore" -}}
{{- with .Values.profileStore }}
{{- if .existingSecret -}}
- ports:
    - port: {{ .port }}
  {{- with .peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Egress to the gRPC port of the pods of a component: (list . "estimator") */}}
{{- define "memplan.network.toPods" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "memplan.selectorLabels" . | nindent 10 }}
  ports:
    - port: grpc
{{- end }}

{{/* Ingress to the gRPC port from the pods of a component: (list . "webhook") */}}
{{- define "memplan.network.fromPods" -}}
- from:
    - podSelector:
        matchLabels:
          {{- include "memplan.selectorLabels" . | nindent 10 }}
  ports:
    - port: grpc
{{- end }}

{{- define "memplan.network.apiServer" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - port: {{ . }}
    {{- end }}
{{- end }}
