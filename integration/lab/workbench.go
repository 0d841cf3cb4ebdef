package lab

import (
	"embed"
	"os"
	"path/filepath"
)

//go:embed workbench
var workbench embed.FS

// workbenchPackages are what the root of a Workbench holds beyond Debian's minimum.
const workbenchPackages = "linux-image-cloud-amd64,initramfs-tools,busybox," +
	"nfs-common,nfs-kernel-server,fio,netbase,udev,iproute2,kmod"

// buildPackages are what programs are built with, besides.
const buildPackages = ",git,gcc,make,libc6-dev"

// Workbench is a Debian root with the kernel's NFS server and fio, on a disk
// image: for guests that measure. It has no service manager; guests with
// different data disks can share it.
type Workbench struct {
	Tree string // directory, what is on the disk
	disk string // image
}

// OpenWorkbench returns the workbench and makes it first if there is none in
// the cache, which takes about a minute.
func OpenWorkbench() (*Workbench, error) { return openWorkbench(workbenchPackages) }

// OpenBuildWorkbench is OpenWorkbench for guests that also build programs.
func OpenBuildWorkbench() (*Workbench, error) {
	return openWorkbench(workbenchPackages + buildPackages)
}

func openWorkbench(packages string) (*Workbench, error) {
	key, err := recipeKey(packages, recipe, workbench)
	if err != nil {
		return nil, err
	}
	dir, lock, err := openCache("workbench-" + key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	w := &Workbench{Tree: filepath.Join(dir, "tree"), disk: filepath.Join(dir, "disk")}
	if _, err := os.Stat(w.disk); err == nil {
		return w, nil
	}
	return w, w.make(packages)
}

// make makes the disk last, so that it is there only if all is.
func (w *Workbench) make(packages string) error {
	scripts, err := unpack(workbench)
	if err != nil {
		return err
	}
	defer os.RemoveAll(scripts)
	scripts = filepath.Join(scripts, "workbench")
	control, err := recipe.ReadFile("recipe/control.sh")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(scripts, "control.sh"), control, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(w.Tree); err != nil {
		return err
	}
	if err := runAll("making a workbench", [][]string{
		mmdebstrap(packages, scripts+"/customize.sh", w.Tree),
	}); err != nil {
		return err
	}
	return MakeDisk(w.disk, w.Tree)
}

// workbenchLine is its kernel's command line. The clock is the processor's, as on
// any real machine: left to itself, the kernel takes an emulated one that costs
// more than most calls. Whether timers tick is not looked at: on a busy host the
// kernel may find that they do not, and then goes on with others that tick wrong.
const workbenchLine = "root=/dev/vda ro init=/usr/local/sbin/lab-init net.ifnames=0" +
	" clocksource=tsc tsc=reliable no_timer_check console=ttyS0 quiet panic=-1"

// Boot fills in what a machine needs to boot from the workbench, with the image
// of a data disk, which it finds at /data. The guest is up when it answers to
// Run. eth0 has no address, and lab-knfsd starts the kernel's NFS server.
func (w *Workbench) Boot(m Machine, data string) (Machine, error) {
	var err error
	if m.Kernel, err = theOne(w.Tree + "/boot/vmlinuz-*"); err != nil {
		return m, err
	}
	m.Initrd, err = theOne(w.Tree + "/boot/initrd.img-*")
	m.Append = workbenchLine
	m.Disks = []string{w.disk, data}
	return m, err
}

// MakeDisk makes the image of a disk with an ext4 file system that holds what
// is in a directory, and has no journal: it is for reading. The file appears when it is whole.
func MakeDisk(image, dir string) error {
	making := image + ".making"
	if err := os.RemoveAll(making); err != nil {
		return err
	}
	if err := runAll("making a disk", [][]string{
		{"mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", dir, making, "2G"},
	}); err != nil {
		return err
	}
	return os.Rename(making, image)
}
