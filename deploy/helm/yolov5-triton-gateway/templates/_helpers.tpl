{{- define "yolo.name" -}}
{{- if contains "yolo" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-yolo" (.Release.Name | trunc 35 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "yolo.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "yolo.labels" -}}
{{ include "yolo.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- /* Of the project: registry and tag are shared. */}}
{{- define "yolo.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $registry := .root.Values.images.registry | trimSuffix "/" -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ include "yolo.pinned" (dict "image" $image "tag" (.root.Values.images.tag | default .root.Chart.AppVersion)) }}
{{- end }}

{{- define "yolo.pinned" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag | default .tag }}{{ end }}
{{- end }}

{{- define "yolo.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user | default 1000 }}
  runAsGroup: {{ .user | default 1000 }}
  fsGroup: {{ .user | default 1000 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "yolo.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "yolo.placed" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Spread over nodes and zones as far as there are any. */}}
{{- define "yolo.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "yolo.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "yolo.tritonUrl" -}}
{{- if .Values.triton.enabled }}{{ include "yolo.name" . }}-triton:8001{{ else }}{{ required "externalTriton.url: give host:port of Triton's gRPC, or set triton.enabled: true" .Values.externalTriton.url }}{{ end }}
{{- end }}

{{- define "yolo.redisHost" -}}
{{ include "yolo.name" . }}-redis
{{- end }}

{{- /* What gateway, workers and webhook sender are told; `secrets` are the names of those that this one uses. */}}
{{- define "yolo.environment" -}}
{{- $values := .root.Values -}}
envFrom:
  - configMapRef: { name: {{ include "yolo.name" .root }}-settings }
env:
  {{- if not $values.redis.enabled }}
  - { name: REDIS_URL_FILE, value: /run/secrets/yolo/redis_url }
  {{- else if $values.redis.password.name }}
  - name: REDIS_PASSWORD
    valueFrom: { secretKeyRef: { name: {{ $values.redis.password.name }}, key: {{ $values.redis.password.key }} } }
  - { name: REDIS_URL, value: "redis://:$(REDIS_PASSWORD)@{{ include "yolo.redisHost" .root }}:6379/0" }
  {{- else }}
  - { name: REDIS_URL, value: "redis://{{ include "yolo.redisHost" .root }}:6379/0" }
  {{- end }}
  {{- if and (has "apiKeys" .secrets) $values.secrets.apiKeys.name }}
  - { name: API_KEYS_FILE, value: /run/secrets/yolo/api_keys }
  {{- end }}
  {{- if and (has "webhookSecret" .secrets) (hasKey $values.settings "CALLBACKS") }}
  - { name: CALLBACKS, value: {{ $values.settings.CALLBACKS | quote }} } # with a secret that workers do not have
  {{- end }}
  {{- if and (has "webhookSecret" .secrets) $values.secrets.webhookSecret.name }}
  - { name: WEBHOOK_SECRET_FILE, value: /run/secrets/yolo/webhook_secret }
  {{- end }}
  {{- if and (has "tritonKey" .secrets) $values.secrets.tritonKey.name }}
  - { name: TRITON_KEY_FILE, value: /run/secrets/yolo/triton_key }
  {{- end }}
{{- end }}

{{- define "yolo.mounts" -}}
volumeMounts:
  - { name: tmp, mountPath: /tmp }
  {{- if include "yolo.sources" . }}
  - { name: secrets, mountPath: /run/secrets/yolo, readOnly: true }
  {{- end }}
{{- end }}

{{- define "yolo.volumes" -}}
volumes:
  - name: tmp
    emptyDir: { sizeLimit: {{ .tmp | default "512Mi" }} }
  {{- with include "yolo.sources" . }}
  - name: secrets
    projected:
      defaultMode: 0440
      sources: {{ . | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "yolo.sources" -}}
{{- $files := dict "apiKeys" "api_keys" "webhookSecret" "webhook_secret" "tritonKey" "triton_key" -}}
{{- range .secrets }}
{{- $secret := index $.root.Values.secrets . }}
{{- if $secret.name }}
- secret:
    name: {{ $secret.name }}
    items: [{ key: {{ $secret.key }}, path: {{ index $files . }} }]
{{- end }}
{{- end }}
{{- if and .redis (not .root.Values.redis.enabled) }}
- secret:
    name: {{ required "externalRedis.url.name: give the Secret that holds the Redis URL, or set redis.enabled: true" .root.Values.externalRedis.url.name }}
    items: [{ key: {{ .root.Values.externalRedis.url.key }}, path: redis_url }]
{{- end }}
{{- end }}

{{- /* New settings start the pods anew. */}}
{{- define "yolo.annotations" -}}
checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end }}
