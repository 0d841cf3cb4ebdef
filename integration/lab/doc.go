// Package lab starts what rootnfsd is tried with: a golden Debian root, a
// network of its own, the daemon, and nodes that boot from it under QEMU.
//
// It knows rootnfsd only by its command line and imports nothing of it. All
// that it starts dies with the process that started it; what lies below .cache
// in the checkout is kept, because it takes minutes to make.
package lab
