// Package load puts servers to work and measures them: single calls at random over
// all objects of a tree, the listing of the whole tree, and the reading of it.
//
// Several servers of the same tree race: in each repetition all of them do the same
// work, one after the other, so that whatever else the machine does hurts all alike.
// Random choices are the same for all, because they depend on nothing but a seed
// and the order of the tree.
package load
