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
