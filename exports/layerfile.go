package exports

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// ownFiles is the files that a node has over a version: what is kept of a layer, in a file of its own, so
// that a handle names the same bytes after a restart. That holds secrets, so only its owner may read
// it:
//
//	magic    16 bytes, with the number of the format
//	version  32 bytes: the digest of the version
//	owner    its length in one byte, and the name of the node, or its address if it had none
//	files    as layer.Encode writes them
//	check    32 bytes: SHA-256 of all of the above
type ownFiles struct {
	version fs.Digest
	owner   string
	files   []layer.File
}

const (
	layerDir    = "node-layers"
	layerMagic  = "rootnfsd layer 1"
	layerHeader = len(layerMagic) + sha256.Size + 1
	// mostLayerFile is how long the file of a layer can be.
	mostLayerFile = layerHeader + 255 + layer.MaxEncoded + sha256.Size
)

// id is what a handle says of the layer.
func (n *ownFiles) id() uint64 {
	d := layer.Digest(n.files)
	sum := sha256.Sum256([]byte("rootnfsd node " + n.owner + "\x00" + string(d[:])))
	return max(1, binary.BigEndian.Uint64(sum[:])) // 0 is none
}

func (n *ownFiles) encode() []byte {
	b := append([]byte(layerMagic), n.version[:]...)
	b = append(b, byte(len(n.owner)))
	b = append(b, n.owner...)
	b = layer.Encode(b, n.files)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeOwnFiles reads what encode wrote, and takes nothing else.
func decodeOwnFiles(b []byte) (*ownFiles, error) {
	n, rest, err := decodeLayerHeader(b)
	if err != nil {
		return nil, err
	}
	if len(rest) < sha256.Size {
		return nil, errors.New("it is cut short")
	}
	body := len(b) - sha256.Size
	if sum := sha256.Sum256(b[:body]); !bytes.Equal(sum[:], b[body:]) {
		return nil, errors.New("it is not what was written")
	}
	n.files, err = layer.Decode(rest[:len(rest)-sha256.Size])
	return n, err
}

// decodeLayerHeader reads all but the files, which it returns.
func decodeLayerHeader(b []byte) (n *ownFiles, rest []byte, err error) {
	if len(b) < layerHeader {
		return nil, nil, errors.New("it is cut short")
	}
	if magic := string(b[:len(layerMagic)]); magic != layerMagic {
		if strings.HasPrefix(magic, layerMagic[:len(layerMagic)-1]) {
			return nil, nil, fmt.Errorf("format %q is not known to this version of rootnfsd", magic[len(magic)-1:])
		}
		return nil, nil, errors.New("it is no layer of a node")
	}
	n = &ownFiles{version: fs.Digest(b[len(layerMagic):])}
	rest = b[layerHeader:]
	size := int(b[layerHeader-1])
	if size == 0 || len(rest) < size {
		return nil, nil, errors.New("it is cut short")
	}
	n.owner = string(rest[:size])
	return n, rest[size:], nil
}

// layerPath is where the layer is kept that a handle names.
func (s *State) layerPath(tree, id uint64) string {
	return filepath.Join(s.dir, layerDir, fmt.Sprintf("%016x-%016x", tree, id))
}

// parseLayerName takes the name of a layer's file apart.
func parseLayerName(name string) (tree, id uint64, ok bool) {
	a, b, _ := strings.Cut(name, "-")
	tree, errA := strconv.ParseUint(a, 16, 64)
	id, errB := strconv.ParseUint(b, 16, 64)
	return tree, id, errA == nil && errB == nil && fmt.Sprintf("%016x-%016x", tree, id) == name
}

// layer reads the layer that a handle names. The error wraps os.ErrNotExist if there is none.
func (s *State) layer(tree, id uint64) (*ownFiles, error) {
	path := s.layerPath(tree, id)
	b, err := readAtMost(path, mostLayerFile)
	if err != nil {
		return nil, err
	}
	n, err := decodeOwnFiles(b)
	if err == nil && (binary.BigEndian.Uint64(n.version[:]) != tree || n.id() != id) {
		err = errors.New("it is that of another")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return n, nil
}

// layerOwner reads whose layer is in a file.
func layerOwner(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, layerHeader+255)
	k, err := io.ReadFull(f, b)
	if err != nil && err != io.ErrUnexpectedEOF {
		return "", err
	}
	n, _, err := decodeLayerHeader(b[:k])
	if err != nil {
		return "", err
	}
	return n.owner, nil
}

func readAtMost(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}

// saveLayer writes a layer durably, in place of whatever has its name, and returns its size in bytes.
func (s *State) saveLayer(n *ownFiles) (size int, err error) {
	b := n.encode()
	if _, err := decodeOwnFiles(b); err != nil {
		return 0, err // it would never be read again
	}
	dir := filepath.Join(s.dir, layerDir)
	err = os.Mkdir(dir, 0o700)
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return 0, err
	}
	return len(b), durable.ReplaceFile(s.layerPath(binary.BigEndian.Uint64(n.version[:]), n.id()), 0o600, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// layerBytes is how much room the layers take that are kept, in bytes, as far as it can be told.
func (s *State) layerBytes() (sum int64) {
	entries, _ := os.ReadDir(filepath.Join(s.dir, layerDir))
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += onDisk(info.Size())
		}
	}
	return sum
}

// onDisk is about how much room a file of so many bytes takes: file systems give whole blocks.
func onDisk(size int64) int64 {
	const block = 4096
	return (size + block - 1) / block * block
}

// hasLayer reports whether there is a file of the layer, whatever is in it.
func (s *State) hasLayer(tree, id uint64) bool {
	_, err := os.Lstat(s.layerPath(tree, id))
	return err == nil
}
