package nodefiles

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/durable"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// addIdentity adds what tells a named node from others, as far as the tree has the directories
// for it. The files are as old as these: their times must not depend on when somebody mounts.
func (m *Maker) addIdentity(s *set, n Node, base fs.Tree) {
	etc, ok := directory(base, "etc")
	if !ok {
		return
	}
	add := func(path string, mode uint32, in *fs.Attr, content string) {
		if err := s.put(layer.File{Path: path, Mode: mode, Mtime: in.Mtime, Content: content}); err != nil {
			s.refuse(fmt.Errorf("%s: %w", path, err))
		}
	}
	add("/etc/hostname", 0o644, &etc, n.Hostname+"\n")
	if id, err := m.MachineID(n.Name); err != nil {
		s.refuse(fmt.Errorf("no machine-id: %w", err))
	} else {
		add("/etc/machine-id", 0o444, &etc, id+"\n")
	}
	in, ok := directory(base, "etc", "ssh")
	if !ok {
		return
	}
	for _, kind := range keyKinds {
		private, public, err := m.hostKey(n.Name, kind)
		if err != nil {
			s.refuse(fmt.Errorf("no %s: %w", kind.file, err))
			continue
		}
		add("/etc/ssh/"+kind.file, 0o600, &in, private)
		add("/etc/ssh/"+kind.file+".pub", 0o644, &in, public)
	}
}

// directory returns the attributes of a directory, if there is one at that path.
func directory(tree fs.Tree, names ...string) (a fs.Attr, ok bool) {
	id := tree.Root()
	for _, name := range names {
		var err error
		if id, err = tree.Lookup(&fs.Cred{}, id, fs.Name(name)); err != nil {
			return a, false
		}
	}
	return a, tree.Getattr(id, &a) == nil && a.Kind == fs.Directory
}

const (
	seedFile = "_seed" // which no node is called
	seedSize = 32
)

// MachineID returns the machine-id of a node that has a name (machine-id(5)): 32 hexadecimal digits. It may wait
// for a disk. It is derived from the name and a secret, so that there is one small file to be kept for all nodes: a
// node that is removed and comes back, whose directory is lost, or that boots from a second server with the same secret, has the id that it
// had. It is made to look like a random UUID, as systemd's own are.
func (m *Maker) MachineID(name string) (string, error) {
	seed, err := m.seed()
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, seed)
	h.Write([]byte("machine-id " + name))
	id := h.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x40 // RFC 9562, section 5.4
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id), nil
}

// seed returns the secret that machine-ids are derived from, making it if there is none.
func (m *Maker) seed() ([]byte, error) {
	m.secrets[0].Lock()
	defer m.secrets[0].Unlock()
	b, err := m.keep(m.Secrets, seedFile, func() ([]byte, error) {
		fresh := make([]byte, seedSize)
		rand.Read(fresh) // never fails
		return fresh, nil
	})
	if err == nil && len(b) != seedSize {
		err = fmt.Errorf("%s has %d bytes, want %d: restore it from a backup, or delete it and every node has a new machine-id", filepath.Join(m.Secrets, seedFile), len(b), seedSize)
	}
	return b, err
}

// keyKind is a kind of host key that sshd looks for.
type keyKind struct {
	file string
	make func() (crypto.PrivateKey, error)
}

var keyKinds = []keyKind{
	{"ssh_host_ed25519_key", func() (crypto.PrivateKey, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}},
	{"ssh_host_ecdsa_key", func() (crypto.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
}

// hostKey returns a node's host key, both halves as sshd wants them in files. It is made once: one
// that cannot be read is an error, for whoever has logged into the node would be told that it is
// somebody else now.
func (m *Maker) hostKey(name string, kind keyKind) (private, public string, err error) {
	sum := sha256.Sum256([]byte(name))
	lock := &m.secrets[binary.BigEndian.Uint32(sum[:])%uint32(len(m.secrets))]
	lock.Lock()
	defer lock.Unlock()
	comment := "root@" + name
	dir := filepath.Join(m.Secrets, name)
	b, err := m.keep(dir, kind.file, func() ([]byte, error) {
		key, err := kind.make()
		if err != nil {
			return nil, err
		}
		block, err := ssh.MarshalPrivateKey(key, comment)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(block), nil
	})
	if err != nil {
		return "", "", err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return "", "", fmt.Errorf("%s is damaged: %w; restore it from a backup, or delete it and the node has a new key", filepath.Join(dir, kind.file), err)
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "\n")
	return string(b), line + " " + comment + "\n", nil
}

// mostSecret bounds what is read of a secret, in bytes.
const mostSecret = 64 << 10

// keep returns what is in a file that only its owner may read, making it if there is none. The caller sees
// to it that nobody else makes the same one.
func (m *Maker) keep(dir, file string, fresh func() ([]byte, error)) ([]byte, error) {
	path := filepath.Join(dir, file)
	b, err := readSecret(path)
	if !errors.Is(err, os.ErrNotExist) {
		return b, err
	}
	if b, err = fresh(); err != nil {
		return nil, err
	}
	if err := mkdirs(dir, m.Secrets); err != nil {
		return nil, err
	}
	left, _ := filepath.Glob(filepath.Join(dir, durable.TempPattern+"*")) // of a crash
	for _, l := range left {
		os.Remove(l)
	}
	err = durable.ReplaceFile(path, 0o600, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	return b, err
}

func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostSecret+1))
	if err == nil && len(b) > mostSecret {
		err = fmt.Errorf("%s has more than %d bytes", path, mostSecret)
	}
	return b, err
}

// mkdirs makes the directory of all secrets, and that of a node in it.
func mkdirs(dir, secrets string) error {
	for _, d := range []string{secrets, dir} {
		err := os.Mkdir(d, 0o700)
		if err == nil {
			err = durable.SyncDir(filepath.Dir(d))
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
