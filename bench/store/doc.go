// Package store measures what a store of versions costs: sealing beside cp(1),
// sealing again, opening, and calls on trees from small to large; and promotes
// under load. It knows rootnfsd as a program, by its command line and protocol.
package store
