package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/image"
)

// exportSquashfs has sqfstar make the image of the archive.
func exportSquashfs(ctx context.Context, v *image.Version, to string) error {
	program, err := exec.LookPath("sqfstar")
	if err != nil {
		return errors.New("squashfs images are made by sqfstar, which is not there: apt-get install squashfs-tools (4.5 or later)")
	}
	root, err := v.Object(v.Root()) // which it does not take from the archive
	if err != nil {
		return err
	}
	return makeFile(to, func(f *os.File) error {
		cmd := exec.CommandContext(ctx, program, "-quiet", "-no-progress", "-force", "-comp", "zstd", "-noI",
			"-root-mode", fmt.Sprintf("%o", root.Mode), "-root-uid", fmt.Sprint(root.UID), "-root-gid", fmt.Sprint(root.GID), "/proc/self/fd/3")
		if err := pipeTar(ctx, v, cmd, f); err != nil {
			return err
		}
		return setRootTime(f, uint32(max(root.Mtime.Sec, 0)))
	})
}

// pipeTar gives a program the archive of a version to read, and a file to write.
func pipeTar(ctx context.Context, v *image.Version, cmd *exec.Cmd, f *os.File) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &said, &said, []*os.File{f}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	writeErr := errors.Join(writeTar(ctx, v, in), in.Close())
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), errors.Join(err, ctx.Err()), strings.TrimSpace(said.String()))
	}
	return writeErr
}

// setRootTime sets the time of the root of a squashfs image whose inodes are not
// compressed: sqfstar takes neither that of the archive nor what -root-time says, but
// today's. The superblock says which metadata block and which byte in it the root's
// inode is; the time is 32 bits at its offset 8.
func setRootTime(f *os.File, seconds uint32) error {
	const (
		rootInode, inodeTable = 32, 64
		blockSize             = 8192 // of content, behind a header of 16 bits
		plain                 = 1 << 15
	)
	var super [inodeTable + 8]byte
	if _, err := f.ReadAt(super[:], 0); err != nil {
		return err
	}
	root := binary.LittleEndian.Uint64(super[rootInode:])
	block := int64(binary.LittleEndian.Uint64(super[inodeTable:]) + root>>16)
	var head [2]byte
	if _, err := f.ReadAt(head[:], block); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(head[:])&plain == 0 {
		return errors.New("sqfstar has compressed the inodes, which it was told not to")
	}
	for i, b := range binary.LittleEndian.AppendUint32(nil, seconds) {
		at := int64(root&0xffff) + 8 + int64(i)
		if _, err := f.WriteAt([]byte{b}, block+at/blockSize*(blockSize+2)+2+at%blockSize); err != nil {
			return err
		}
	}
	return nil
}
