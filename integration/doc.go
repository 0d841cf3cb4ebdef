// Package integration tests rootnfsd from outside, as its users meet it: the
// real binary, real NFS clients, and real Debian nodes that QEMU boots from it.
//
// The tests own no expectation about packages inside; what they start is in
// package lab, which the demo uses too. They need root, QEMU and some Debian
// packages (setup.sh installs them). Where something is missing a test skips
// and says what; with ROOTNFSD_TEST_ALL=1 in the environment it fails instead.
// ROOTNFSD_TEST_LONG=1 adds the tests that take many minutes.
package integration
