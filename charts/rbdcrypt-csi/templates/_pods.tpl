{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* What pods of several components share. */}}

{{/* Settings of every command, csi_driver/settings.py. Takes (list root port). */}}
{{- define "rbdcrypt.settings" -}}
{{- $root := index . 0 -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: RBDCRYPT_CLUSTERS_FILE
  value: /etc/rbdcrypt-csi/config.json
{{- if $root.Values.existingCephCsi.configMap }}
- name: RBDCRYPT_CEPH_CSI_FILE
  value: /etc/rbdcrypt-csi/ceph-csi.json
{{- end }}
- name: RBDCRYPT_DRIVER_NAME
  value: {{ $root.Values.driverName | quote }}
- name: RBDCRYPT_HTTP_ADDRESS
  value: {{ printf "[$(POD_IP)]:%v" (index . 1) | quote }}
- name: RBDCRYPT_LOG_FORMAT
  value: {{ $root.Values.log.format | quote }}
- name: RBDCRYPT_LOG_LEVEL
  value: {{ $root.Values.log.level | quote }}
{{- end -}}

{{/* Settings of the two commands that run on nodes. */}}
{{- define "rbdcrypt.nodeSettings" -}}
- name: RBDCRYPT_STATE_DIR
  value: {{ .Values.paths.state | quote }}
- name: RBDCRYPT_RUN_DIR
  value: {{ .Values.paths.run | quote }}
- name: RBDCRYPT_DEVICE_METHOD
  value: {{ .Values.deviceMethod | quote }}
{{- end -}}

{{/* The volume with the cluster list and the Ceph users, for /etc/rbdcrypt-csi.
     Secrets are files, so that no key stands in an environment or an argument. */}}
{{- define "rbdcrypt.configVolume" -}}
- name: config
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "rbdcrypt.fullname" . }}-config
          items:
            - key: config.json
              path: config.json
      {{- with .Values.existingCephCsi }}
      {{- if .configMap }}
      - configMap:
          name: {{ .configMap }}
          items:
            - key: {{ .key }}
              path: ceph-csi.json
      {{- end }}
      {{- end }}
      {{- range .Values.clusters }}
      - secret:
          name: {{ .secretName }}
          items:
            - key: userID
              path: ceph/{{ .clusterID }}/userID
            - key: userKey
              path: ceph/{{ .clusterID }}/userKey
      {{- end }}
{{- end -}}

{{/* Where a pod may write although its root is read-only. */}}
{{- define "rbdcrypt.tmpVolume" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end -}}

{{/* Security context of containers that need no privilege at all. */}}
{{- define "rbdcrypt.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{/* One HTTP probe. Takes (list values path port). */}}
{{- define "rbdcrypt.probe" -}}
{{- $values := index . 0 -}}
httpGet:
  path: {{ index . 1 }}
  port: {{ index . 2 }}
periodSeconds: {{ $values.periodSeconds }}
timeoutSeconds: {{ $values.timeoutSeconds }}
failureThreshold: {{ $values.failureThreshold }}
{{- end -}}

{{/* Labels of a pod. Takes (list root component values). */}}
{{- define "rbdcrypt.podLabels" -}}
{{- $root := index . 0 -}}
{{- $fixed := fromYaml (include "rbdcrypt.selectorLabels" .) -}}
{{- $values := index . 2 -}}
{{- toYaml (merge $fixed $values.podLabels $root.Values.commonLabels) -}}
{{- end -}}

{{/* A part of a pod's specification, after its containers. Takes (list root values). */}}
{{- define "rbdcrypt.podBasics" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
hostNetwork: {{ $values.hostNetwork }}
# Services are found by their names: none of them can look like a setting.
enableServiceLinks: false
dnsPolicy: {{ $values.dnsPolicy }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where pods of the node service and of the datapath run: on the same nodes. */}}
{{- define "rbdcrypt.nodePlacement" -}}
{{- with .Values.nodePlacement.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodePlacement.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodePlacement.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The livenessprobe sidecar. Takes (list root port). */}}
{{- define "rbdcrypt.livenessSidecar" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values.sidecars.livenessProbe -}}
- name: liveness-probe
  {{- include "rbdcrypt.image" (list $root $values.image) | nindent 2 }}
  args:
    - --v={{ $root.Values.sidecars.logLevel }}
    - --csi-address=/csi/csi.sock
    - --probe-timeout=3s
    - --http-endpoint=:{{ index . 1 }}
    {{- with $values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "rbdcrypt.unprivileged" . | nindent 4 }}
  volumeMounts:
    - name: socket
      mountPath: /csi
{{- end -}}
