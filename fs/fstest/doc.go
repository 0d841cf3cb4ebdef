// Package fstest holds what tests of trees share: Objects, a description of a
// file tree that can be made in memory or on a host directory; MemTree, a
// fs.Tree in memory; and TestTree, the conformance suite that every fs.Tree
// must pass.
//
// It knows the contract of fs.Tree and nothing of who implements or serves it.
package fstest
