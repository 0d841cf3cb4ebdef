// Package store measures what a store of versions costs: sealing beside cp(1),
// sealing again, opening, and calls on trees from small to large; promotes under load;
// and importing beside the programs that take compression off. It knows rootnfsd as a program, by its command line and protocol.
package store
