{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* config.json, csi_driver/domain/clusters.py: ceph-csi's form and a key of our own. */}}
{{- define "rbdcrypt.config" -}}
{{- $clusters := list -}}
{{- range .Values.clusters -}}
{{- $files := printf "/etc/rbdcrypt-csi/ceph/%s" .clusterID -}}
{{- $own := dict "userIDFile" (printf "%s/userID" $files) "keyFile" (printf "%s/userKey" $files) "pools" .pools -}}
{{- with .dataPools -}}
{{- $_ := set $own "dataPools" . -}}
{{- end -}}
{{- $entry := dict "clusterID" .clusterID "rbdcrypt" $own -}}
{{- with .monitors -}}
{{- $_ := set $entry "monitors" . -}}
{{- end -}}
{{- $clusters = append $clusters $entry -}}
{{- end -}}
{{- toPrettyJson $clusters -}}
{{- end -}}
