{{/* Names and labels. */}}
{{- define "fairlead.name" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "fairlead" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-fairlead" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "fairlead.selector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "fairlead.labels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object in the release's namespace: dict root, component, and name, what follows the chart's. */}}
{{- define "fairlead.metadata" -}}
name: {{ include "fairlead.name" .root }}{{ with .name }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "fairlead.labels" . | nindent 2 }}
{{- end }}

{{/* The same, of an object that belongs to no namespace. */}}
{{- define "fairlead.clusterMetadata" -}}
name: {{ include "fairlead.name" .root }}{{ with .name }}-{{ . }}{{ end }}
labels: {{- include "fairlead.labels" . | nindent 2 }}
{{- end }}

{{- define "fairlead.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "fairlead.tokenSecret" -}}
{{ .Values.token.existingSecret | default (printf "%s-token" (include "fairlead.name" .)) }}
{{- end }}

{{- define "fairlead.caSecret" -}}
{{ .Values.tls.existingSecret | default (printf "%s-ca" (include "fairlead.name" .)) }}
{{- end }}

{{/* Addresses. Engines are told numbers: a pod's environment has those of the Services that were there before it. */}}
{{- define "fairlead.any" -}}
{{ if eq .Values.ipFamily "IPv6" }}[::]{{ else }}0.0.0.0{{ end }}
{{- end }}

{{/* dict root, host */}}
{{- define "fairlead.host" -}}
{{ if eq .root.Values.ipFamily "IPv6" }}[{{ .host }}]{{ else }}{{ .host }}{{ end }}
{{- end }}

{{/* The variable that holds the address of the Service of a control process: dict root, index. */}}
{{- define "fairlead.controlVariable" -}}
{{ printf "%s_CONTROL_%d_SERVICE_HOST" (include "fairlead.name" .root | upper | replace "-" "_" | replace "." "_") (int .index) }}
{{- end }}

{{/* Where REST is asked: every process, with commas. */}}
{{- define "fairlead.servers" -}}
{{- $servers := list }}
{{- range $index := until (int .Values.control.replicas) }}
{{- $servers = append $servers (printf "https://%s-control-%d.%s.svc:7400" (include "fairlead.name" $) $index $.Release.Namespace) }}
{{- end }}
{{- join "," $servers }}
{{- end }}

{{/* What the command line in a pod has to know: certificates in /tls, tokens in /token. */}}
{{- define "fairlead.clientEnvironment" -}}
- name: FAIRLEAD_SERVER
  value: {{ include "fairlead.servers" . }}
- name: FAIRLEAD_CA
  value: /tls/ca.pem
- name: FAIRLEAD_TOKEN_FILE
  value: /token/admin
{{- end }}

{{/* Where the node is: Kubernetes copies these labels of a node to its pods. */}}
{{- define "fairlead.topologyEnvironment" -}}
{{- range .Values.topologyLabels }}
- name: {{ upper . }}
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/{{ . }}']"}}
{{- end }}
{{- end }}

{{/* Options of a command from values: dict of option: value. */}}
{{- define "fairlead.settings" -}}
{{- range $name, $value := . }}
{{- if kindIs "slice" $value }}
{{- range $value }}
- --{{ $name }}={{ . }}
{{- end }}
{{- else }}
- --{{ $name }}={{ if kindIs "float64" $value }}{{ printf "%v" $value }}{{ else }}{{ $value }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Makes the pod's certificate: /tls has ca.pem, cert.pem and key.pem then. dict root, names (DNS:…), and variables with
addresses, some of which may be empty. The CA's key is mounted here only.
*/}}
{{- define "fairlead.certificateContainer" -}}
- name: certificate
  image: {{ include "fairlead.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    - /bin/sh
    - -euc
    - |
      names={{ join "," .names | squote }}
      for address in {{ range .variables }}"${{ printf "{%s:-}" . }}" {{ end }}127.0.0.1; do
        if [ -n "$address" ]; then names="$names,IP:$address"; fi
      done
      openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=fairlead \
        -addext "subjectAltName=${names#,}" -keyout /tls/key.pem -out /tls/request.pem
      serial=0x$(openssl rand -hex 16)
      openssl x509 -req -in /tls/request.pem -days {{ .root.Values.tls.days }} -copy_extensions copy -set_serial "$serial" \
        -CA /ca/tls.crt -CAkey /ca/tls.key -out /tls/cert.pem
      cat /ca/tls.crt >> /tls/cert.pem
      cp /ca/ca.crt /tls/ca.pem
      rm /tls/request.pem
  env:
    - name: POD_IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    - name: HOME
      value: /tls
  securityContext: {{- include "fairlead.restricted" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: tls, mountPath: /tls}
    - {name: ca, mountPath: /ca, readOnly: true}
{{- end }}

{{- define "fairlead.certificateVolumes" -}}
- name: tls
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: ca
  secret:
    secretName: {{ include "fairlead.caSecret" . }}
    defaultMode: 0440
{{- end }}

{{/* A container that needs nothing of its node. */}}
{{- define "fairlead.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A pod that is nobody on its node. */}}
{{- define "fairlead.nobody" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where to run: dict of a component's values. */}}
{{- define "fairlead.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "fairlead.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The store, as fairlead control is told. */}}
{{- define "fairlead.etcdEndpoints" -}}
{{- if .Values.etcd.create }}
{{- $members := list }}
{{- range $index := until (int .Values.etcd.replicas) }}
{{- $members = append $members (printf "https://%s-etcd-%d.%s-etcd.%s.svc:2379" (include "fairlead.name" $) $index (include "fairlead.name" $) $.Release.Namespace) }}
{{- end }}
{{- join "," $members }}
{{- else }}
{{- join "," .Values.etcd.endpoints }}
{{- end }}
{{- end }}

{{/* Whether engines open block devices: a word, or nothing. */}}
{{- define "fairlead.hasBlockDevices" -}}
{{- if .Values.engine.blockDevices }}yes
{{- else if .Values.pools.create }}
{{- if .Values.pools.disks }}yes{{ end }}
{{- range .Values.pools.nodes }}{{ if . }}yes{{ end }}{{ end }}
{{- end }}
{{- end }}

{{- define "fairlead.hasSnapshots" -}}
{{- $create := toString .Values.snapshotClass.create }}
{{- if eq $create "true" }}yes
{{- else if and (eq $create "auto") (.Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1") }}yes
{{- end }}
{{- end }}

{{- define "fairlead.hasGroupSnapshots" -}}
{{- $create := toString .Values.groupSnapshotClass.create }}
{{- if not (include "fairlead.hasSnapshots" .) }}
{{- else if eq $create "true" }}yes
{{- else if and (eq $create "auto") (.Capabilities.APIVersions.Has "groupsnapshot.storage.k8s.io/v1") }}yes
{{- end }}
{{- end }}

{{/* What schema cannot say. */}}
{{- define "fairlead.check" -}}
{{- with .Values }}
{{- if and (gt (int .control.replicas) 1) (eq .control.store "sqlite") }}
{{- fail "control.replicas: more than one process needs control.store=etcd" }}
{{- end }}
{{- if and (eq .control.store "etcd") (not .etcd.create) (not .etcd.endpoints) }}
{{- fail "control.store=etcd: name the etcd that is there (etcd.endpoints), or let the chart bring one (etcd.create=true)" }}
{{- end }}
{{- if and .etcd.create .etcd.endpoints }}
{{- fail "etcd.create=true and etcd.endpoints: give one of them" }}
{{- end }}
{{- if and .etcd.create (ne .control.store "etcd") }}
{{- fail "etcd.create=true: only control.store=etcd uses it" }}
{{- end }}
{{- if and .etcd.nodes (ne (len .etcd.nodes) (int .etcd.replicas)) }}
{{- fail (printf "etcd.nodes: %d nodes for %d replicas; one for each" (len .etcd.nodes) (int .etcd.replicas)) }}
{{- end }}
{{- if and .control.sqlite.node .control.sqlite.existingClaim }}
{{- fail "control.sqlite.node and control.sqlite.existingClaim: give one of them" }}
{{- end }}
{{- if and (eq (toString .groupSnapshotClass.create) "true") (not (include "fairlead.hasSnapshots" $)) }}
{{- fail "groupSnapshotClass.create=true: needs snapshotClass.create=true, or the snapshot CRDs" }}
{{- end }}
{{- if and .networkPolicy.create (not .networkPolicy.nodeNetworks) }}
{{- fail "networkPolicy.create=true: name the networks of the nodes (networkPolicy.nodeNetworks), or engines reach no control plane" }}
{{- end }}
{{- end }}
{{- end }}

{{/* /ca/ca.pem, for who only has to know whom to trust. */}}
{{- define "fairlead.trustVolume" -}}
- name: ca
  secret:
    secretName: {{ include "fairlead.caSecret" . }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.pem}]
{{- end }}
