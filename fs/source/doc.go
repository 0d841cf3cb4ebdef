// Package source reads what people have, so that it can be sealed: each source
// is a read-only billy.Filesystem whose FileInfos also tell what billy has no
// words for (Meta), and which may offer extended attributes (XattrReader) and
// the places of holes in its files (DataFinder).
//
// It knows nothing of how trees are stored or served.
package source
