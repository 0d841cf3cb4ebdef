package lab

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed recipe
var recipe embed.FS

// packages are what the golden root holds beyond Debian's minimum. overlayroot
// calls busybox's grep in the initramfs, and mount.nfs looks into netbase's
// /etc/protocols.
const packages = "systemd-sysv,linux-image-cloud-amd64,initramfs-tools,busybox,overlayroot," +
	"e2fsprogs,cryptsetup-bin,nfs-common,netbase,udev,iproute2,ifupdown,isc-dhcp-client,kmod"

// Golden is a store with two golden Debian roots, v1 and v2, not sealed yet.
type Golden struct {
	Store string // directory for --export
	lock  *os.File
}

// OpenGolden returns the golden roots and makes them first if there are none
// in the cache, which takes about a minute. They are one process's alone until
// Close; another one waits in OpenGolden.
func OpenGolden() (*Golden, error) {
	key, err := recipeKey(packages, recipe)
	if err != nil {
		return nil, err
	}
	return openStore("golden-"+key, debootstrap)
}

// openStore returns the store in a directory of the cache. If there is none yet, fill makes it.
func openStore(name string, fill func(store string) error) (*Golden, error) {
	dir, lock, err := openCache(name)
	if err != nil {
		return nil, err
	}
	// The name of a store's directory is the name that nodes mount.
	g := &Golden{Store: filepath.Join(dir, "images"), lock: lock}
	if err := g.prepare(filepath.Join(dir, "making"), fill); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// Close lets the next process have the golden roots.
func (g *Golden) Close() error { return g.lock.Close() }

// Tree is the directory of a version.
func (g *Golden) Tree(version string) string { return filepath.Join(g.Store, version) }

// Boot fills in the kernel and the initramfs of a version.
func (g *Golden) Boot(version string, m Machine) (Machine, error) {
	var err error
	if m.Kernel, err = theOne(g.Tree(version) + "/boot/vmlinuz-*"); err != nil {
		return m, err
	}
	m.Initrd, err = theOne(g.Tree(version) + "/boot/initrd.img-*")
	return m, err
}

// Reset takes away all that rootnfsd has written to the store: seals and promotions.
func (g *Golden) Reset() error { return os.RemoveAll(filepath.Join(g.Store, ".rootnfsd")) }

// prepare leaves the store as fill has made it.
func (g *Golden) prepare(making string, fill func(store string) error) error {
	if _, err := os.Stat(g.Store); err == nil {
		return g.Reset()
	}
	if err := os.RemoveAll(making); err != nil {
		return err
	}
	if err := os.Mkdir(making, 0o755); err != nil {
		return err
	}
	if err := fill(making); err != nil {
		return err
	}
	return os.Rename(making, g.Store)
}

// debootstrap makes v1 and v2 in dir.
func debootstrap(dir string) error {
	scripts, err := unpack(recipe)
	if err != nil {
		return err
	}
	defer os.RemoveAll(scripts)
	scripts = filepath.Join(scripts, "recipe")
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	return runAll("making a golden root", [][]string{
		mmdebstrap(packages, scripts+"/customize.sh", v1),
		{"sh", scripts + "/manifest.sh", v1}, // after mmdebstrap has taken its own files away
		{"cp", "-a", v1, v2},
		{"sh", scripts + "/upgrade.sh", v2},
	})
}

// mmdebstrap is the command that makes a Debian root of packages in the
// directory root, which a script finishes.
func mmdebstrap(packages, script, root string) []string {
	return []string{"mmdebstrap", "--variant=minbase", "--include=" + packages,
		"--customize-hook=sh " + script + ` "$1"`, "bookworm", root}
}

// unpack writes a recipe to a temporary directory.
func unpack(recipe embed.FS) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "recipe"); err != nil {
		return "", err
	}
	return dir, os.CopyFS(dir, recipe)
}

// recipeKey is a hash of all that goes into a root.
func recipeKey(packages string, recipes ...embed.FS) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, packages)
	for _, recipe := range recipes {
		err := fs.WalkDir(recipe, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := recipe.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}

// openCache makes a directory in the cache and locks it until the file that is
// returned is closed.
func openCache(name string) (dir string, lock *os.File, err error) {
	checkout, err := Checkout()
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(checkout, ".cache", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	// Servers say of what they export where it is, however it was called.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", nil, err
	}
	lock, err = lockFile(filepath.Join(dir, "lock"))
	return dir, lock, err
}

// lockFile opens path when no other process has it locked.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// theOne is the one file that a pattern matches.
func theOne(pattern string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(files) != 1 {
		return "", errors.New(pattern + " matches: " + strings.Join(files, ", "))
	}
	return files[0], nil
}

// OpenNodeSide returns a store with one golden root, v1, which is that of OpenGolden with what `program
// node-files` has for Debian and a home, in its initramfs, too. Like the other it is made when it is not in the
// cache, and one process's alone until Close.
func OpenNodeSide(program, home string) (*Golden, error) {
	args := []string{"node-files", "--for", "debian", "--home", home}
	files, err := exec.Command(program, append(args, "--tar")...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", program, args, err)
	}
	key, err := recipeKey(packages+string(files), recipe)
	if err != nil {
		return nil, err
	}
	return openStore("nodeside-"+key, func(store string) error {
		return fillNodeSide(store, append([]string{program}, args...))
	})
}

// fillNodeSide makes v1 in a store, in which install puts the node files.
func fillNodeSide(store string, install []string) error {
	golden, err := OpenGolden()
	if err != nil {
		return err
	}
	defer golden.Close()
	root := filepath.Join(store, "v1")
	return runAll("making a golden root with node files", [][]string{
		{"cp", "-a", golden.Tree("v1"), root},
		append(install, "--into", root, "--yes"),
		{"unshare", "--mount", "sh", "-euc", `mount -t proc proc "$1/proc" && chroot "$1" update-initramfs -u -k all`, "sh", root},
	})
}
