{{/* The ports of a server's Service, which is headless: (list . "estimator") */}}
{{- define "memplan.service.spec" -}}
{{- $root := index . 0 -}}
clusterIP: None
selector:
  {{- include "memplan.selectorLabels" . | nindent 2 }}
ports:
  - name: grpc
    port: {{ $root.Values.ports.grpc }}
    targetPort: grpc
  - name: metrics
    port: {{ $root.Values.ports.metrics }}
    targetPort: metrics
{{- end }}
