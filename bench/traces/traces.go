// Package traces holds recordings of nodes that booted, for bench/storm. Both are
// of an emulated node with the golden Debian root of integration/lab, and are made
// anew by
//
//	go run ./integration/bootbench --trace-dir bench/traces
package traces

import _ "embed"

// DebianBoot is a boot with the mount options that rootnfsd prints for nodes.
//
//go:embed debian-boot.trace
var DebianBoot []byte
