{{/* Metadata of what the Jobs need, which comes and goes with them: (list . "name") */}}
{{- define "memplan.selfsigned.metadata" -}}
name: {{ index . 1 }}
labels:
  {{- include "memplan.labels" (list (index . 0) "webhook-certificate") | nindent 2 }}
annotations:
  helm.sh/hook: pre-install,pre-upgrade,post-install,post-upgrade
  helm.sh/hook-weight: "-5"
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* A Job that runs files/certificate.py: (dict "root" . "task" "secret" "hook" "pre-install"
     "arguments" (list)). */}}
{{- define "memplan.selfsigned.job" -}}
{{- $root := .root }}
{{- $name := printf "%s-certificate" (include "memplan.componentName" (list $root "webhook")) -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}-{{ .task }}
  labels:
    {{- include "memplan.labels" (list $root "webhook-certificate") | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-weight: "0"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 300
  template:
    metadata:
      labels:
        {{- include "memplan.selectorLabels" (list $root "webhook-certificate") | nindent 8 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "memplan.podSecurityContext" $root | nindent 8 }}
      containers:
        - name: certificate
          image: {{ include "memplan.image" (list $root $root.Values.image "") }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [python3, /etc/memplan/certificate.py, {{ .task }}]
          args:
            - --name
            - {{ include "memplan.webhook.secret" $root }}
            {{- toYaml .arguments | nindent 12 }}
          resources:
            requests:
              cpu: 50m
              memory: 64Mi
            limits:
              cpu: 500m
              memory: 128Mi
          securityContext:
            {{- include "memplan.containerSecurityContext" $root | nindent 12 }}
          volumeMounts:
            - name: script
              mountPath: /etc/memplan
              readOnly: true
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: script
          configMap:
            name: {{ $name }}
        - name: tmp
          emptyDir:
            sizeLimit: 16Mi
{{- end }}
