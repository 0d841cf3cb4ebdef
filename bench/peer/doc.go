// Package peer starts the servers that are measured beside each other, and
// meters them: rootnfsd, nfs-ganesha, go-nfs, and the limit, a bare program that
// sends the same bytes with no NFS at all; and, for TFTP, dnsmasq, tftpd-hpa and
// pin/tftp.
//
// Each is a process of its own on a free port of loopback, so that the processor
// time that it is charged is the server's alone. Nothing is installed, and
// nothing is left behind: where a server is missing the error says how to get it.
package peer
