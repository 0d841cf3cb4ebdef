package exports

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// MaxHandle is the longest file handle in bytes that NFSv3 allows (RFC 1813,
// section 2.4, NFS3_FHSIZE).
const MaxHandle = 64

// A handle says by itself what it means, so that there is no table that could
// be lost in a restart or thrown out under load. That of a version's object:
//
//	 0  format    1
//	 1  kind      1 = object of a sealed version
//	 2  zero      2 bytes
//	 4  export    uint32: hash of the image's name, not its place in a list
//	 8  tree      uint64: first 64 bits of the version's digest
//	16  inode     uint64
//	24  tag       uint64: SipHash-2-4 over all of the above with the store's key
//
// Numbers are big-endian. A second server with the same store and key makes
// the same handles.
//
// That of an object of a version that a node sees with files of its own:
//
//	 0  as above, but for
//	 1  kind      3 = object of a version with a layer
//	24  layer     uint64: hash of the node's name or address and of the layer's files
//	32  tag       as above
//
// That of an object in a home, which has no inode number alone that could be
// trusted:
//
//	 0  format    1
//	 1  kind      2 = object of a home
//	 2  length    uint8: of the object
//	 3  zero
//	 4  home      uint64: hash of the node's name
//	12  tree      uint64: the identity of the home's file tree
//	20  object    what the host's kernel calls it, and zeros up to a multiple of 4
//	..  tag       as above
//
// That of an object in a draft:
//
//	0  as that in a home, but for
//	1  kind      4 = object of a draft
//	4  draft     uint64: first 64 bits of the digest that was made up for it
const (
	handleFormat  = 1
	kindVersion   = 1
	kindHome      = 2
	kindLayer     = 3
	kindDraft     = 4
	tagSize       = 8
	versionHandle = 32
	layerHandle   = 40
	layerOffset   = 24
	objectOffset  = 20
)

// exportID is what a handle says of its image.
func exportID(name string) uint32 {
	h := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint32(h[:])
}

// isVersion reports whether a handle says that it is of a version. What it says may
// be a lie.
func isVersion(handle []byte) bool {
	switch len(handle) {
	case versionHandle:
		return handle[0] == handleFormat && handle[1] == kindVersion
	case layerHandle:
		return handle[0] == handleFormat && handle[1] == kindLayer
	}
	return false
}

// signed reports whether a handle's tag was made with the key.
func (k sipKey) signed(handle []byte) bool {
	body := handle[:len(handle)-tagSize]
	return k.sum(body) == binary.BigEndian.Uint64(handle[len(body):])
}

// appendHandle appends the handle of object id in the tree of v.
func appendHandle(b []byte, v *version, id fs.NodeID) []byte {
	start := len(b)
	b = append(b, handleFormat, kindVersion, 0, 0)
	b = binary.BigEndian.AppendUint32(b, v.image.id)
	b = binary.BigEndian.AppendUint64(b, v.treeID)
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	return binary.BigEndian.AppendUint64(b, v.image.key.sum(b[start:]))
}

// appendLayerHandle appends the handle of object id in the tree of v with a layer.
func appendLayerHandle(b []byte, v *version, layer uint64, id fs.NodeID) []byte {
	start := len(b)
	b = append(b, handleFormat, kindLayer, 0, 0)
	b = binary.BigEndian.AppendUint32(b, v.image.id)
	b = binary.BigEndian.AppendUint64(b, v.treeID)
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	b = binary.BigEndian.AppendUint64(b, layer)
	return binary.BigEndian.AppendUint64(b, v.image.key.sum(b[start:]))
}

// homeHandle is what a handle of a home or a draft says.
type homeHandle struct {
	kind   byte
	home   uint64
	fsid   uint64
	object fs.Handle
}

// IsHome reports whether a handle says that it is of a home, or of a draft, which is
// written to in the same way. What it says may be a lie.
func IsHome(handle []byte) bool {
	return len(handle) > 1 && handle[0] == handleFormat && (handle[1] == kindHome || handle[1] == kindDraft)
}

// parseHomeHandle takes a handle apart without trusting it.
func parseHomeHandle(b []byte) (h homeHandle, ok bool) {
	if len(b) < objectOffset+tagSize || !IsHome(b) {
		return h, false
	}
	n := int(b[2])
	if n > fs.MaxHandle || len(b) != objectOffset+(n+3)&^3+tagSize {
		return h, false
	}
	h.kind = b[1]
	h.home = binary.BigEndian.Uint64(b[4:])
	h.fsid = binary.BigEndian.Uint64(b[12:])
	h.object.Len = uint8(n)
	copy(h.object.Bytes[:n], b[objectOffset:])
	return h, true
}

// appendHomeHandle appends the handle of an object in a home or a draft whose tree is fsid.
func appendHomeHandle(b []byte, home *writable, fsid uint64, object fs.Handle) []byte {
	start := len(b)
	b = append(b, handleFormat, home.kind, object.Len, 0)
	b = binary.BigEndian.AppendUint64(b, home.id)
	b = binary.BigEndian.AppendUint64(b, fsid)
	b = append(b, object.Bytes[:(int(object.Len)+3)&^3]...)
	return binary.BigEndian.AppendUint64(b, home.key.sum(b[start:]))
}

const keyFile = "key"

// loadKey reads the handle key of a store, making it if there is none. Whoever
// has it can forge handles, so nobody but the owner may read it; whoever loses
// it loses every mount, so it is never replaced.
func loadKey(stateDir string) (sipKey, error) {
	path := filepath.Join(stateDir, keyFile)
	key, err := readKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	err = durable.ReplaceFile(path, 0o600, func(w io.Writer) error {
		var fresh [16]byte
		rand.Read(fresh[:]) // never fails
		_, err := w.Write(fresh[:])
		return err
	})
	if err != nil {
		return sipKey{}, fmt.Errorf("make the handle key: %w", err)
	}
	return readKey(path)
}

func readKey(path string) (sipKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return sipKey{}, err
	}
	if len(b) != 16 {
		return sipKey{}, fmt.Errorf("%s has %d bytes, want 16: restore it from a backup, or delete it and reboot all nodes (their handles were made with it)", path, len(b))
	}
	return newSipKey((*[16]byte)(b)), nil
}
