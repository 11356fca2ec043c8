{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* What no schema can say: values that contradict each other or the cluster. */}}

{{- define "rbdcrypt.checks" -}}
{{- include "rbdcrypt.checkPods" . -}}
{{- include "rbdcrypt.checkClusters" . -}}
{{- include "rbdcrypt.checkClasses" . -}}
{{- include "rbdcrypt.checkDriver" . -}}
{{- if .Release.IsUpgrade -}}
{{- include "rbdcrypt.checkUpgrade" . -}}
{{- include "rbdcrypt.checkRemovedClusters" . -}}
{{- include "rbdcrypt.checkChangedClasses" . -}}
{{- end -}}
{{- end -}}

{{- define "rbdcrypt.checkPods" -}}
{{- if and (eq .Values.image.tag "latest") (not .Values.image.digest) -}}
{{- fail "image.tag: \"latest\" does not say which version a node's datapath has; give a version or a digest" -}}
{{- end -}}
{{- $ports := list (list "node.httpPort" .Values.node.httpPort) (list "datapath.httpPort" .Values.datapath.httpPort) (list "sidecars.livenessProbe.nodePort" .Values.sidecars.livenessProbe.nodePort) -}}
{{- include "rbdcrypt.checkPorts" (list "on the same node" $ports) -}}
{{- $ports = list (list "controller.httpPort" .Values.controller.httpPort) -}}
{{- if .Values.sidecars.livenessProbe.enabled -}}
{{- $ports = append $ports (list "sidecars.livenessProbe.controllerPort" .Values.sidecars.livenessProbe.controllerPort) -}}
{{- end -}}
{{- if .Values.sidecars.metrics -}}
{{- range $port := list 9683 9684 9685 9686 -}}
{{- $ports = prepend $ports (list "sidecars.metrics" $port) -}}
{{- end -}}
{{- end -}}
{{- include "rbdcrypt.checkPorts" (list "in the same pod" $ports) -}}
{{- $mounted := dict -}}
{{- range $name := list "kubelet" "state" "run" -}}
{{- $path := get $.Values.paths $name -}}
{{- if hasKey $mounted $path -}}
{{- fail (printf "paths.%s: %q is paths.%s already: each needs a directory of its own" $name $path (get $mounted $path)) -}}
{{- end -}}
{{- $_ := set $mounted $path $name -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.serviceMonitor.enabled: metrics.podMonitor is enabled, too, and everything would be counted twice" -}}
{{- end -}}
{{- if gt (int .Values.networkPolicy.ceph.firstPort) (int .Values.networkPolicy.ceph.lastPort) -}}
{{- fail "networkPolicy.ceph.lastPort is below firstPort" -}}
{{- end -}}
{{- end -}}

{{/* Takes (list where ports), of which each is (list value port). */}}
{{- define "rbdcrypt.checkPorts" -}}
{{- $where := index . 0 -}}
{{- $taken := dict -}}
{{- range index . 1 -}}
{{- $port := toString (index . 1) -}}
{{- if hasKey $taken $port -}}
{{- fail (printf "%s: port %s is taken by %s %s" (index . 0) $port (get $taken $port) $where) -}}
{{- end -}}
{{- $_ := set $taken $port (index . 0) -}}
{{- end -}}
{{- end -}}

{{- define "rbdcrypt.checkClusters" -}}
{{- if not .Values.clusters -}}
{{- fail "clusters is empty: name at least one Ceph cluster, with clusterID, monitors, secretName and pools (README.md of the chart shows one)" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $index, $cluster := .Values.clusters -}}
{{- if hasKey $seen .clusterID -}}
{{- fail (printf "clusters.%d.clusterID: %q is there twice" $index .clusterID) -}}
{{- end -}}
{{- $_ := set $seen .clusterID true -}}
{{- if not (or .monitors $.Values.existingCephCsi.configMap) -}}
{{- fail (printf "clusters.%d.monitors: cluster %q has none, and existingCephCsi.configMap names no list to take them from" $index .clusterID) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The clusterID stands in every volume's id: without its cluster nobody could open,
     grow or delete it. PersistentVolumes are read only if one is gone from the values. */}}
{{- define "rbdcrypt.checkRemovedClusters" -}}
{{- $kept := list -}}
{{- range .Values.clusters -}}
{{- $kept = append $kept .clusterID -}}
{{- end -}}
{{- $removed := list -}}
{{- $there := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-config" (include "rbdcrypt.fullname" .)) -}}
{{- range dig "data" "config.json" "[]" $there | fromJsonArray -}}
{{- if not (has .clusterID $kept) -}}
{{- $removed = append $removed .clusterID -}}
{{- end -}}
{{- end -}}
{{- if $removed -}}
{{- range (lookup "v1" "PersistentVolume" "" "").items -}}
{{- $source := .spec.csi | default dict -}}
{{- $id := splitList ":" ($source.volumeHandle | default "") -}}
{{- if and (eq ($source.driver | default "") $.Values.driverName) (gt (len $id) 1) -}}
{{- if has (index $id 1) $removed -}}
{{- fail (printf "clusters: cluster %q is installed and gone from the values, but PersistentVolume %s is there: nobody could open, grow or delete it any more; keep the cluster until it has no volumes" (index $id 1) .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A class that the driver would refuse is refused before it exists: it could not be
     changed afterwards. */}}
{{- define "rbdcrypt.checkClasses" -}}
{{- $clusters := dict -}}
{{- range .Values.clusters -}}
{{- $_ := set $clusters .clusterID . -}}
{{- end -}}
{{- range $index, $class := .Values.storageClasses -}}
{{- $at := printf "storageClasses.%d.parameters" $index -}}
{{- $given := .parameters -}}
{{- $cluster := get $clusters $given.clusterID -}}
{{- if not $cluster -}}
{{- fail (printf "%s.clusterID: %q is none of clusters, which are %s" $at $given.clusterID (keys $clusters | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $places := list -}}
{{- $pools := list -}}
{{- range $cluster.pools -}}
{{- $pool := .name -}}
{{- $pools = append $pools $pool -}}
{{- range .namespaces | default (list "") -}}
{{- $places = append $places (ternary $pool (printf "%s/%s" $pool .) (eq . "")) -}}
{{- end -}}
{{- end -}}
{{- $place := $given.pool -}}
{{- with $given.radosNamespace -}}
{{- $place = printf "%s/%s" $given.pool . -}}
{{- end -}}
{{- if not (has $place $places) -}}
{{- fail (printf "%s.pool: %q is none of the pools and RADOS namespaces of cluster %q, which are %s" $at $place $given.clusterID (join ", " $places)) -}}
{{- end -}}
{{- with $given.dataPool -}}
{{- $dataPools := concat $pools ($cluster.dataPools | default list) -}}
{{- if not (has . $dataPools) -}}
{{- fail (printf "%s.dataPool: %q is none of the pools of cluster %q, which are %s" $at . $given.clusterID (join ", " $dataPools)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.volumeSnapshotClasses (not .Values.sidecars.snapshotter.enabled) -}}
{{- fail "volumeSnapshotClasses: nobody would serve them, since sidecars.snapshotter.enabled is false" -}}
{{- end -}}
{{- end -}}

{{/* Two drivers of one name would answer for each other's volumes. */}}
{{- define "rbdcrypt.checkDriver" -}}
{{- $found := lookup "storage.k8s.io/v1" "CSIDriver" "" .Values.driverName -}}
{{- if $found -}}
{{- $notes := $found.metadata.annotations | default dict -}}
{{- $name := get $notes "meta.helm.sh/release-name" -}}
{{- $namespace := get $notes "meta.helm.sh/release-namespace" -}}
{{- if or (ne $name .Release.Name) (ne $namespace .Release.Namespace) -}}
{{- $owner := ternary (printf "release %s in namespace %s" $name $namespace) "something other than Helm" (ne $name "") -}}
{{- fail (printf "driverName: CSIDriver %s exists in this cluster and belongs to %s: uninstall that one, or give this release another driverName, other paths.state and paths.run, and other ports" .Values.driverName $owner) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What cannot be changed while volumes are mounted, compared with what is installed.
     Without an API server (helm template) there is nothing to compare with. */}}
{{- define "rbdcrypt.checkUpgrade" -}}
{{- range (lookup "storage.k8s.io/v1" "CSIDriver" "" "").items -}}
{{- $notes := .metadata.annotations | default dict -}}
{{- $ours := and (eq (get $notes "meta.helm.sh/release-name") $.Release.Name) (eq (get $notes "meta.helm.sh/release-namespace") $.Release.Namespace) -}}
{{- if and $ours (eq (get (.metadata.labels | default dict) "app.kubernetes.io/name") $.Chart.Name) (ne .metadata.name $.Values.driverName) -}}
{{- fail (printf "driverName: this release is installed as %q, which stands in every PersistentVolume: as %q it would serve none of them, and nobody would; keep it, or install a second release" .metadata.name $.Values.driverName) -}}
{{- end -}}
{{- end -}}
{{- $labels := include "rbdcrypt.selectorLabels" (list . "datapath") | fromYaml -}}
{{- range (lookup "apps/v1" "DaemonSet" .Release.Namespace "").items -}}
{{- if eq (.spec.selector.matchLabels | toJson) ($labels | toJson) -}}
{{- $wanted := printf "%s-datapath" (include "rbdcrypt.fullname" $) -}}
{{- if ne .metadata.name $wanted -}}
{{- fail (printf "fullnameOverride: the datapath's DaemonSet is installed as %q: one named %q would replace it, and end the I/O of every mounted volume; keep the name" .metadata.name $wanted) -}}
{{- end -}}
{{- include "rbdcrypt.checkPaths" (list $ .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Node pods are replaced by an upgrade and datapath pods are not, so that the two
     would look for each other in different places. Takes (list root daemonset). */}}
{{- define "rbdcrypt.checkPaths" -}}
{{- $paths := (index . 0).Values.paths -}}
{{- $volumes := dict -}}
{{- range (index . 1).spec.template.spec.volumes -}}
{{- if .hostPath -}}
{{- $_ := set $volumes .name .hostPath.path -}}
{{- end -}}
{{- end -}}
{{- range $place := list
  (list "paths.run" "run" $paths.run "node services would not find the datapaths that run, nor what is mounted")
  (list "paths.state" "state" $paths.state "what nodes remember of volumes in use would be lost to them")
  (list "paths.kubelet" "plugins" (printf "%s/plugins" $paths.kubelet) "volumes that are mounted there could not be unmounted") -}}
{{- $there := get $volumes (index $place 1) -}}
{{- if and $there (ne $there (index $place 2)) -}}
{{- fail (printf "%s: this release is installed with %q: %s; keep it, or stop all workloads, uninstall and install anew" (index $place 0) (trimSuffix "/plugins" $there) (index $place 3)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
