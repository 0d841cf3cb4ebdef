// Package layer lays a small set of files over a tree that cannot be changed:
// what one node has of its own over a version that it shares with all others.
//
// It owns how the two become one fs.Tree, which files can be laid over a tree
// at all, and how a set of files is written down and told from another. It must
// not know where the files come from, who may read them or where they are kept.
package layer
