{{- define "isochrone.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "isochrone.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "isochrone.labels" -}}
{{ include "isochrone.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "isochrone.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "isochrone.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "isochrone.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{/* A value as the text of an environment variable: 1000000 must not become 1e+06. */}}
{{- define "isochrone.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- printf "%.0f" . | quote -}}
{{- else -}}
{{- . | toString | quote -}}
{{- end -}}
{{- end -}}

{{/* Names of the settings that come as files, of the chart's own Secret and of an existing one. */}}
{{- define "isochrone.secretNames" -}}
{{- concat (keys .Values.secrets.values | sortAlpha) (ternary .Values.secrets.existingKeys list (ne .Values.secrets.existing "")) | join " " -}}
{{- end -}}

{{/* The environment of a daemon: .root and .settings (its own). What it sets itself over what all set over what the chart
knows; secrets by the files that hold them. */}}
{{- define "isochrone.environment" -}}
{{- $root := .root -}}
{{- $all := dict "ISOCHRONE_SHUTDOWN" (printf "%ds" (int $root.Values.shutdownSeconds)) -}}
{{- if $root.Values.redis.enabled -}}
{{- $_ := set $all "ISOCHRONE_REDIS_URL" (printf "redis://%s-redis:6379" (include "isochrone.fullname" $root)) -}}
{{- end -}}
{{- if $root.Values.mosquitto.enabled -}}
{{- $_ := set $all "ISOCHRONE_BROKER" (printf "mqtt://%s-mosquitto:1883" (include "isochrone.fullname" $root)) -}}
{{- end -}}
{{- range $name, $value := mergeOverwrite $all (deepCopy .defaults) (deepCopy $root.Values.settings) (deepCopy .settings) -}}
{{- $_ := set $all $name $value -}}
{{- end -}}
{{- range splitList " " (include "isochrone.secretNames" $root) -}}
{{- if . -}}
{{- $_ := unset $all . -}}
{{- $_ := set $all (printf "%s_FILE" .) (printf "/run/secrets/isochrone/%s" .) -}}
{{- end -}}
{{- end -}}
{{- range $name := keys $all | sortAlpha }}
- name: {{ $name }}
  value: {{ include "isochrone.text" (get $all $name) }}
{{- end -}}
{{- end -}}

{{/* Values that cannot work together: said before anything is installed. */}}
{{- define "isochrone.check" -}}
{{- $secrets := splitList " " (include "isochrone.secretNames" .) -}}
{{- if and (not .Values.mosquitto.enabled) (not (has "ISOCHRONE_BROKER" $secrets)) (not (hasKey .Values.producer.settings "ISOCHRONE_BROKER")) -}}
{{- fail "mosquitto.enabled is false: the broker must be in producer.settings.ISOCHRONE_BROKER or secrets.values.ISOCHRONE_BROKER" -}}
{{- end -}}
{{- if and (not .Values.redis.enabled) (not (has "ISOCHRONE_REDIS_URL" $secrets)) (not (hasKey .Values.settings "ISOCHRONE_REDIS_URL")) -}}
{{- fail "redis.enabled is false: the store must be in settings.ISOCHRONE_REDIS_URL or secrets.values.ISOCHRONE_REDIS_URL" -}}
{{- end -}}
{{- if and .Values.secrets.existing (not .Values.secrets.existingKeys) -}}
{{- fail "secrets.existing is set: secrets.existingKeys must list its keys that are settings" -}}
{{- end -}}
{{- if and .Values.secrets.existingKeys (not .Values.secrets.existing) -}}
{{- fail "secrets.existingKeys is set: secrets.existing must be the name of a Secret" -}}
{{- end -}}
{{- if eq .Values.producer.kind "Job" -}}
{{- if .Values.producer.autoscaling.enabled -}}
{{- fail "producer.kind is Job: producer.autoscaling.enabled must be false, for a Job has all its pods from the start" -}}
{{- end -}}
{{- if eq (get .Values.producer.settings "ISOCHRONE_AT_END" | toString) "idle" -}}
{{- fail "producer.kind is Job: producer.settings.ISOCHRONE_AT_END must not be idle, with which it would never end" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "isochrone.secretVolume" -}}
- name: secrets
  projected:
    sources:
      {{- if .Values.secrets.values }}
      - secret:
          name: {{ include "isochrone.fullname" . }}
      {{- end }}
      {{- if .Values.secrets.existing }}
      - secret:
          name: {{ .Values.secrets.existing }}
          items:
            {{- range .Values.secrets.existingKeys }}
            - { key: {{ . }}, path: {{ . }} }
            {{- end }}
      {{- end }}
{{- end -}}

{{- define "isochrone.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}
