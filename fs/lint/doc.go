// Package lint looks through a root file system for what goes wrong when nodes
// without a disk boot it over NFSv3: all of them from the same tree, which is
// read-only, each with an overlay in memory that it loses when it is switched off.
//
// It takes any billy.Filesystem, and the extended attributes of one that is a
// source.XattrReader, and trusts nothing in it: symlinks are followed inside the
// tree, what is read or unpacked is bounded. It knows nothing of versions, of
// stores or of what is promoted.
package lint
