// Package netboot gives nodes without a disk what they boot from, by TFTP: firmware, kernel, initramfs and command
// line, all of the version that the node will mount as its root.
//
// It owns the names by which boot files are asked for, where they lie in an image, and the words of a
// kernel command line. Which version a node gets is decided by exports; TFTP itself is
// netboot/tftp. It must not know NFS procedures, stores or how a node's files are made.
package netboot
