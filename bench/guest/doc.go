// Package guest races rootnfsd against the NFS server of the kernel that it runs
// on. A guest that is made for it is the place: the kernel's server belongs to the
// whole machine.
package guest
