package main

import (
	"testing"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func TestModeString(t *testing.T) {
	for _, c := range []struct {
		kind fs.Kind
		mode uint32
		want string
	}{
		{fs.Regular, 0o644, "-rw-r--r--"},
		{fs.Directory, 0o1777, "drwxrwxrwt"},
		{fs.Directory, 0o1776, "drwxrwxrwT"},
		{fs.Regular, 0o4755, "-rwsr-xr-x"},
		{fs.Regular, 0o6644, "-rwSr-Sr--"},
		{fs.Symlink, 0o777, "lrwxrwxrwx"},
		{fs.BlockDevice, 0o660, "brw-rw----"},
		{fs.CharDevice, 0, "c---------"},
		{fs.Socket, 0o1, "s--------x"},
		{fs.FIFO, 0o400, "pr--------"},
		{99, 0, "?---------"},
	} {
		if got := modeString(&image.Object{Attr: fs.Attr{Kind: c.kind, Mode: c.mode}}); got != c.want {
			t.Errorf("%v %o: %s; want %s", c.kind, c.mode, got, c.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/hostname": "/etc/hostname", "/with space": "/with space", "/ümlaut": "/ümlaut",
		"/new\nline": `"/new\nline"`, "/\x1b[2J": `"/\x1b[2J"`, "/\xff": `"/\xff"`, "/right\u202eleft": `"/right\u202eleft"`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %s; want %s", in, got, want)
		}
	}
}

func TestSummaryDir(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/vmlinuz": "/", "/etc/hostname": "/etc", "/usr/bin/ls": "/usr/bin", "/usr/lib/x/y/z": "/usr/lib", "/usr/lib": "/usr",
	} {
		if got := summaryDir(in); got != want {
			t.Errorf("%s: %s; want %s", in, got, want)
		}
	}
}
