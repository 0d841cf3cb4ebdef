package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// objectJSON is an object of a version in the output of --json.
type objectJSON struct {
	Type   string            `json:"type"`
	Mode   string            `json:"mode"` // octal
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Size   uint64            `json:"size"`
	Links  uint32            `json:"links"`
	Mtime  string            `json:"mtime"`
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"` // major:minor
	Digest string            `json:"digest,omitempty"` // of content
	Xattrs map[string][]byte `json:"xattrs,omitempty"` // values in base64
}

func objectOf(o *image.Object) *objectJSON {
	if o == nil {
		return nil
	}
	j := &objectJSON{
		Type: o.Kind.String(), Mode: octal(o.Mode), UID: o.UID, GID: o.GID, Size: o.Size, Links: o.Nlink,
		Mtime: instant(o.Mtime), Target: o.Target, Xattrs: xattrMap(o.Xattrs),
	}
	switch o.Kind {
	case fs.BlockDevice, fs.CharDevice:
		j.Device = device(o)
	case fs.Regular:
		j.Digest = o.Digest.String()
	}
	return j
}

func xattrMap(xattrs []source.Xattr) map[string][]byte {
	if len(xattrs) == 0 {
		return nil
	}
	m := make(map[string][]byte, len(xattrs))
	for _, x := range xattrs {
		m[x.Name] = x.Value
	}
	return m
}

// pathJSON is a path in the output of --json. JSON has no bytes, only text.
type pathJSON struct {
	Path  string `json:"path"`
	Bytes []byte `json:"path_bytes,omitempty"` // in base64, if the path is not UTF-8
}

func pathOf(path string) pathJSON {
	if utf8.ValidString(path) {
		return pathJSON{Path: path}
	}
	return pathJSON{Path: path, Bytes: []byte(path)}
}

func octal(mode uint32) string { return fmt.Sprintf("%04o", mode) }

func device(o *image.Object) string { return fmt.Sprintf("%d:%d", o.Major, o.Minor) }

// instant writes a time exactly. A time.Time refuses to be JSON from the year
// 10000 on, which a file may well be of.
func instant(t fs.Time) string {
	return time.Unix(t.Sec, int64(t.Nsec)).UTC().Format(time.RFC3339Nano)
}

// printable writes a path for people: quoted if there is something in it that
// is not text, so that no name can move the cursor or look like two lines.
func printable(path string) string {
	for _, r := range path {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return strconv.Quote(path)
		}
	}
	return path
}

// colours paints words, or does not.
type colours bool

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

func (c colours) paint(colour, text string) string {
	if !c {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// coloursFor says whether what goes to stdout is coloured: auto means on a
// terminal, unless $NO_COLOR is set (no-color.org).
func coloursFor(when string) (colours, error) {
	switch strings.ToLower(when) {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		return colours(os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(os.Stdout.Fd()))), nil
	}
	return false, fmt.Errorf("--color %s: want auto, always or never", when)
}
