{{/* Secret with the certificate of the webhook. */}}
{{- define "memplan.webhook.secret" -}}
{{- $name := include "memplan.componentName" (list . "webhook") }}
{{- with .Values.webhook.certificates }}
{{- ternary .existingSecret $name (eq .mode "existing") }}
{{- end }}
{{- end }}

{{/* DNS name by which the API server calls the webhook. */}}
{{- define "memplan.webhook.host" -}}
{{- include "memplan.componentName" (list . "webhook") }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* One webhook of three, which differ by path and by the label of the namespace:
     (dict "root" . "name" "plan.memplan.dev" "path" "/mutate" "label" (dict ...)) */}}
{{- define "memplan.webhook" -}}
{{- $root := .root }}
{{- $values := $root.Values.webhook -}}
- name: {{ .name }}
  clientConfig:
    service:
      name: {{ include "memplan.componentName" (list $root "webhook") }}
      namespace: {{ $root.Release.Namespace }}
      path: {{ .path }}
      port: 443
    {{- with $values.certificates.caBundle }}
    caBundle: {{ b64enc . }}
    {{- end }}
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values:
          {{- append $values.excludedNamespaces $root.Release.Namespace | uniq | toYaml | nindent 10 }}
      - key: memplan.dev/policy
        {{- toYaml .label | nindent 8 }}
  matchConditions:
    - name: annotated
      expression: has(object.metadata.annotations) && 'memplan.dev/job' in object.metadata.annotations
  rules:
    - apiGroups: [""]
      apiVersions: [v1]
      resources: [pods]
      operations: [CREATE]
      scope: Namespaced
    - apiGroups: [batch]
      apiVersions: [v1]
      resources: [jobs]
      operations: [CREATE]
      scope: Namespaced
    - apiGroups: [trainer.kubeflow.org]
      apiVersions: [v1alpha1]
      resources: [trainjobs]
      operations: [CREATE]
      scope: Namespaced
  admissionReviewVersions: [v1]
  # Nothing is made beside the object.
  sideEffects: None
  failurePolicy: {{ $values.failurePolicy }}
  matchPolicy: Equivalent
  reinvocationPolicy: IfNeeded
  # Above MEMPLAN_WEBHOOK_PATIENCE.
  timeoutSeconds: {{ $values.timeoutSeconds }}
{{- end }}
