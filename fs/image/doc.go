// Package image is the store: it seals golden trees into immutable versions and
// opens them for reading. It owns the files below .rootnfsd/versions and
// .rootnfsd/packs and knows nothing of which version is promoted, of clients or
// of NFS.
//
// # What a version is
//
// A version is an index file, which holds all about a tree but the content of
// its files, and refers to packs, which hold content. Both are written once,
// under temporary names, synced and renamed; nothing changes them afterwards. An
// index may be replaced, by one that finds the same content in other packs: see
// compact.go. The layouts are described beside the code that reads them:
// format.go and pack.go.
//
// Objects are numbered from 1, the root, level by level and each directory in
// the order of the bytes of its names; an object with several names has its
// number from the first. These are the NodeIDs, below 2^32.
//
// Some attributes are not taken from the host, because a copy of the tree would
// not carry them: atime and ctime are the mtime; links are counted in the tree
// (a directory has two and one for each directory in it); the size of a
// directory is 16 bytes and the length of the name for each entry, "." and ".."
// among them, rounded up to 4096. Extended attributes are kept if a faithful
// copy carries them (package source says which).
//
// # Content
//
// Content is cut into chunks of 64 KiB, the last one of a file being shorter. A
// chunk of zeros is a hole and not stored. Any other is stored once in a store,
// under its SHA-256, whichever files, versions and seals it occurs in. The space
// that a file is said to use is that of its chunks, rounded up to 4096.
//
// The digest of a file is the SHA-256 of its size and, for each chunk that is
// not a hole, of the chunk's number (64 bits each, little endian) and SHA-256.
// The digest of a version is the SHA-256 of the canonical part of its index:
// all that a client can see, the digests of files for their content. It does not
// depend on the version's name, on when and where it was sealed, or on what was
// in the store before. So the same tree has the same digest, FSID and NodeIDs
// everywhere.
//
// # What can be relied on
//
// Open verifies the whole index; see Version for what it then answers from
// memory. Content is verified chunk by chunk when it is first read since its pack
// was opened, that is, once in the life of a process that serves it: damage that
// is there by then is an error that names the file and the pack, never wrong
// bytes, and concerns nobody who reads something else. What changes on the disk
// afterwards is not noticed: a chunk that was good is not looked at again, and
// the kernel may read it anew from a disk that has failed since, or that somebody
// writes to. The same holds for an index, but for parts that cannot be read at
// all. So run Verify from time to time; it looks at everything.
//
// To repair a pack, put the damaged one aside and seal the same tree again: that
// stores what is missing. Sealing it again also replaces a damaged index.
//
// Packs hold the content of all files, whatever their mode, and can be read by
// their owner only. Indexes hold names, attributes and link texts, and can be
// read by all.
//
// What was sealed before and did not change since, as stat(2) tells, is not read
// again: see stamps.go for when that is believed.
//
// Sealing, removing and compacting take a lock that all processes respect. A
// crash at any moment leaves what was there or what should be, and maybe
// temporary files and packs that nobody refers to; the next who takes the lock
// deletes the former, and the next Remove or Compact the latter.
package image
