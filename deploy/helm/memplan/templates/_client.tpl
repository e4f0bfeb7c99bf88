{{/* The pod of a process that asks the estimators: (dict "root" . "component" "webhook" "values"
     .Values.webhook "command" "webhook" "serviceAccount" "name" "token" false "probes" (dict
     "scheme" "HTTPS" "port" "https") "ports" (list (dict "name" "https" "containerPort" 8443))
     "secret" "name of the certificate's Secret, or empty"). */}}

{{- define "memplan.client.pod" -}}
{{- $root := .root }}
{{- $values := .values -}}
metadata:
  {{- include "memplan.pod.metadata" . | nindent 2 }}
spec:
  serviceAccountName: {{ .serviceAccount }}
  automountServiceAccountToken: {{ .token }}
  # A Service called memplan would set MEMPLAN_PORT and others like it, which are not settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: 20
  {{- include "memplan.pod.placement" . | nindent 2 }}
  containers:
    - name: {{ .component }}
      image: {{ include "memplan.image" (list $root $root.Values.image "") }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [memplan, {{ .command }}]
      {{- include "memplan.client.args" $root | nindent 6 }}
      env:
        - name: MEMPLAN_SERVER
          value: {{ include "memplan.target" (list $root "estimator") }}
        {{- $prefix := printf "MEMPLAN_%s_" (upper .command) }}
        - name: {{ $prefix }}METRICS_PORT
          value: {{ $root.Values.ports.metrics | quote }}
        {{- range $name, $value := $values.settings }}
        {{- if not (kindIs "invalid" $value) }}
        - name: {{ $prefix }}{{ snakecase $name | upper }}
          value: {{ ternary (join " " $value) (include "memplan.setting" $value) (kindIs "slice" $value) | quote }}
        {{- end }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- toYaml .ports | nindent 8 }}
      {{- with .probes }}
      startupProbe:
        httpGet:
          path: /healthz
          port: {{ .port }}
          scheme: {{ .scheme }}
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet:
          path: /readyz
          port: {{ .port }}
          scheme: {{ .scheme }}
        periodSeconds: 5
        timeoutSeconds: 3
      livenessProbe:
        httpGet:
          path: /healthz
          port: {{ .port }}
          scheme: {{ .scheme }}
        periodSeconds: 20
        timeoutSeconds: 10
      {{- end }}
      lifecycle:
        preStop:
          # Those who call learn that this pod goes before it does.
          sleep:
            seconds: 5
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- include "memplan.containerSecurityContext" $root | nindent 8 }}
      {{- include "memplan.client.mounts" . | nindent 6 }}
  {{- include "memplan.client.volumes" . | nindent 2 }}
{{- end }}

{{/* How it talks to the estimators. */}}
{{- define "memplan.client.args" -}}
{{- with .Values.tls }}
{{- if .existingSecret -}}
args:
  - --tls-ca=/etc/memplan/client/ca.crt
  {{- if .clientCertificates }}
  - --tls-cert=/etc/memplan/client/tls.crt
  - --tls-key=/etc/memplan/client/tls.key
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "memplan.client.mounts" -}}
{{- if or .secret .root.Values.tls.existingSecret .values.extraVolumeMounts -}}
volumeMounts:
  {{- if .secret }}
  - name: certificate
    mountPath: /etc/memplan/webhook
    readOnly: true
  {{- end }}
  {{- if .root.Values.tls.existingSecret }}
  - name: client
    mountPath: /etc/memplan/client
    readOnly: true
  {{- end }}
  {{- with .values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "memplan.client.volumes" -}}
{{- $tls := .root.Values.tls }}
{{- if or .secret $tls.existingSecret .values.extraVolumes -}}
volumes:
  {{- with .secret }}
  - name: certificate
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- if $tls.existingSecret }}
  # Of the servers' own Secret the authority alone: their key is theirs.
  - name: client
    secret:
      secretName: {{ ternary $tls.clientSecret $tls.existingSecret $tls.clientCertificates }}
      defaultMode: 0440
      {{- if not $tls.clientCertificates }}
      items:
        - key: ca.crt
          path: ca.crt
      {{- end }}
  {{- end }}
  {{- with .values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
