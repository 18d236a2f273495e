{{/* What all pods share: one program, one configuration, one environment. */}}

{{- define "accrue.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "accrue.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: run
{{- end -}}

{{- define "accrue.sinkSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: sink
{{- end -}}

{{/* Each entry of `sinks` has a name of its own, also where a long one is cut; a StatefulSet's may have 52 characters. */}}
{{- define "accrue.sinkTitle" -}}
{{- $sink := index . 1 -}}
{{- $title := printf "%s-%s-%s" (include "accrue.name" (index . 0)) $sink.command $sink.name | lower | replace "_" "-" | replace "." "-" | trimSuffix "-" -}}
{{- if gt (len $title) 52 -}}
{{- $title = printf "%s-%s" ($title | trunc 43 | trimSuffix "-") ($title | sha256sum | trunc 8) -}}
{{- end -}}
{{- $title -}}
{{- end -}}

{{- define "accrue.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "accrue.topology" -}}
{{- .Values.topology | default (.Files.Get "files/topology.toml") -}}
{{- end -}}

{{/* What every pod has. */}}
{{- define "accrue.pod" -}}
serviceAccountName: {{ .Values.serviceAccountName }}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "accrue.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Each name once: `env` replaces what is set here, `secretEnv` replaces both. */}}
{{- define "accrue.env" -}}
{{- $plain := dict
      "ACCRUE_LOG" "kafka"
      "ACCRUE_REGISTRY" "confluent"
      "ACCRUE_TOPOLOGY" "/etc/accrue/topology.toml"
      "ACCRUE_DATA_DIR" "/var/lib/accrue"
      "ACCRUE_HTTP_LISTEN" "0.0.0.0:8080"
      "KAFKA_BOOTSTRAP" .Values.kafka.bootstrapServers
      "REGISTRY_URL" .Values.registry.url -}}
{{- $plain = mergeOverwrite $plain .Values.env -}}
{{- range $name, $value := omit $plain "ACCRUE_INSTANCE_ID" "ACCRUE_HTTP_ADVERTISED" }}
{{- if not (hasKey $.Values.secretEnv $name) }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- range $name, $from := .Values.secretEnv }}
- {name: {{ $name }}, valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}}
{{- end }}
{{- end -}}

{{- define "accrue.mounts" -}}
- {name: topology, mountPath: /etc/accrue/topology.toml, subPath: topology.toml, readOnly: true}
{{- range $name, $secret := .Values.secretFiles }}
- {name: {{ printf "secret-%s" $name }}, mountPath: {{ printf "/etc/accrue/secrets/%s" $name }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "accrue.secretVolumes" -}}
{{- range $name, $secret := .Values.secretFiles }}
- {name: {{ printf "secret-%s" $name }}, secret: {secretName: {{ $secret }}, defaultMode: 0440}}
{{- end }}
{{- end -}}
