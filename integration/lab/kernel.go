package lab

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

//go:embed nfsroot.config
var kernelConfig []byte

// NFSRootKernel returns a Linux kernel that mounts an NFS root without an
// initramfs. It is built of Debian's linux-source and kept in the cache; the
// first time takes some minutes.
func NFSRootKernel() (string, error) {
	source, err := theOne("/usr/src/linux-source-*.tar.xz")
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(append([]byte(source), kernelConfig...))
	dir, lock, err := openCache(fmt.Sprintf("kernel-%x", key[:6]))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	kernel := filepath.Join(dir, "bzImage")
	if _, err := os.Stat(kernel); err == nil {
		return kernel, nil
	}
	return kernel, errors.Join(buildKernel(source, kernel), os.RemoveAll(kernel+".build"))
}

// buildKernel builds in a directory beside the kernel, which is there when it is whole.
func buildKernel(source, kernel string) error {
	dir := kernel + ".build"
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	config := filepath.Join(dir, "nfsroot.config")
	if err := os.WriteFile(config, kernelConfig, 0o644); err != nil {
		return err
	}
	if err := runAll("building a kernel", [][]string{
		{"tar", "--extract", "--file", source, "--strip-components=1", "--directory", dir},
		{"make", "--silent", "-C", dir, "KCONFIG_ALLCONFIG=" + config, "allnoconfig"},
		{"make", "--silent", "-C", dir, fmt.Sprintf("-j%d", runtime.NumCPU()), "bzImage"},
	}); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "arch/x86/boot/bzImage"), kernel)
}
