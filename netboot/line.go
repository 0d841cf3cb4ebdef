package netboot

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Line is what a node's kernel command line is made of. Its methods change nothing.
type Line struct {
	Server  netip.Addr // as the node sees it; IPv4, for nothing that mounts a root takes another
	Ports   Ports
	Image   string
	Version string   // empty for what is promoted when the node boots
	FSID    uint64   // of the version, by which the overlay's hook tells it from others
	Draft   bool     // the version is a draft, which the node writes to
	Words   []string // of the image (ImageWords)

	Hostname  string // these are empty for none
	MachineID string
	Own       string // the node's own words

	// Bare is set for a kernel without an initramfs, which mounts the root itself and lays no overlay over it.
	Bare bool
}

// Ports say where NFS and MOUNT are found.
type Ports struct {
	NFS    int  // that answers MOUNT, too
	Mapper bool // a port mapper knows it
}

// Bounds of a command line, in bytes.
const (
	// MostLine is as much as is ever given to a node.
	MostLine = 4096
	// usualLine is what the kernel takes on arm64, arm and x86 (COMMAND_LINE_SIZE, from 1024 on old arm on).
	usualLine = 2048
)

// By says whose a word is.
type By string

// The origins of words.
const (
	ByServer By = "server"
	ByImage  By = "image"
	ByNode   By = "node"
)

// Word is one word of a command line, or one that was left out.
type Word struct {
	Text string `json:"word"`
	By   By     `json:"by"`
	// Why says what it does, or why it was left out.
	Why     string `json:"why"`
	LeftOut bool   `json:"left_out,omitempty"`
	// Options are what the word of nfsroot= has behind its path.
	Options []Word `json:"options,omitempty"`
}

// versionOptions are those of NFS that both klibc's nfsmount and the kernel's own nfsroot take. Attributes may be cached
// for a day because a version never changes: without that a boot makes twice the calls.
var versionOptions = []Word{
	{Text: "v3", Why: "NFS version 3"},
	{Text: "tcp", Why: "over TCP"},
	{Text: "nolock", Why: "without a lock manager, for nobody writes"},
	{Text: "ro", Why: "read-only"},
	{Text: "nocto", Why: "what is opened is not looked at again first: a version never changes"},
	{Text: "acregmin=86400", Why: "attributes of files are good for a day"},
	{Text: "acregmax=86400", Why: "and for no more"},
	{Text: "acdirmin=86400", Why: "those of directories, too"},
	{Text: "acdirmax=86400", Why: "and for no more"},
	{Text: "rsize=1048576", Why: "reads of up to 1 MiB, which kernels would otherwise make in pieces of 4 KiB"},
}

// draftOptions are those of a draft, whose files change.
var draftOptions = []Word{
	{Text: "v3", Why: "NFS version 3"},
	{Text: "tcp", Why: "over TCP"},
	{Text: "nolock", Why: "locks are the node's own, for nobody else writes"},
	{Text: "rw", Why: "the draft is written to"},
	{Text: "hard", Why: "what is written waits for a server that is away"},
	{Text: "rsize=1048576", Why: "reads of up to 1 MiB, which kernels would otherwise make in pieces of 4 KiB"},
	{Text: "wsize=1048576", Why: "writes, too"},
}

// options returns those of the mount.
func (l *Line) options() []Word {
	all := versionOptions
	if l.Draft {
		all = draftOptions
	}
	all = slices.Clone(all)
	if l.Ports.NFS != 2049 || !l.Ports.Mapper {
		all = append(all, Word{Text: fmt.Sprintf("port=%d", l.Ports.NFS), Why: "where NFS is"})
	}
	if l.Bare && !l.Ports.Mapper {
		all = append(all, Word{Text: fmt.Sprintf("mountport=%d", l.Ports.NFS), Why: "where MOUNT is, which no port mapper tells"})
	}
	for i := range all {
		all[i].By = ByServer
	}
	return all
}

// root returns the word that says where the root is.
func (l *Line) root() Word {
	w := Word{Options: l.options()}
	address := l.Server.Unmap().String()
	if !l.Server.Unmap().Is4() {
		address = "SERVER-IPV4"
	}
	path := "/" + l.Image
	switch {
	case l.Draft:
		path += "@" + l.Version
		w.Why = "the draft, until it is sealed, released or abandoned"
	case l.Version == "":
		w.Why = "the version that is promoted when the node boots"
	default:
		path += "@" + l.Version
		w.Why = "exactly this version, which the kernel is of, too"
	}
	var texts []string
	for _, o := range w.Options {
		texts = append(texts, o.Text)
	}
	w.Text = fmt.Sprintf("nfsroot=%s:%s,%s", address, path, strings.Join(texts, ","))
	return w
}

// ours returns the words that the server adds. recurse=0 keeps overlayroot from laying a RAM overlay over other mounts of
// fstab, a home for example.
func (l *Line) ours() []Word {
	words := []Word{{Text: "root=/dev/nfs", Why: "the root comes over NFS"}}
	switch {
	case l.Draft:
		words = append(words, Word{Text: "rw", Why: "the draft is written to"})
	case l.Bare:
		words = append(words, Word{Text: "ro", Why: "nothing lays an overlay over the root before init runs"})
	default:
		words = append(words, Word{Text: "rw", Why: "the overlay over the root can be written to"})
	}
	words = append(words, l.root(), Word{Text: "ip=dhcp", Why: "the network is set up before there is a root"},
		Word{Text: "panic=120", Why: "boot again two minutes after the kernel, or the initramfs, gave up: nobody is there to see to it"})
	switch {
	case l.Draft:
		words = append(words, Word{Text: "overlayroot=disabled", Why: "changes go to the draft"})
	case !l.Bare:
		words = append(words, Word{Text: "overlayroot=tmpfs:recurse=0", Why: "changes go to memory, and other mounts of fstab are left alone"})
	}
	if l.Hostname != "" {
		words = append(words, Word{Text: "systemd.hostname=" + l.Hostname, Why: "what the node calls itself"})
	}
	if l.MachineID != "" {
		words = append(words, Word{Text: "systemd.machine_id=" + l.MachineID, Why: "the node's machine-id, the same at each boot"})
	}
	for i := range words {
		words[i].By = ByServer
	}
	return words
}

// All returns all words in their order, those that are left out among them: first the image's, then the server's, then the
// node's own, each of which stands in for those before that are about the same; what is for init comes
// last. The error says what an operator should know; the words are good all the same, and have no more than MostLine bytes.
func (l *Line) All() ([]Word, error) {
	words, err := l.all(l.Words)
	if len(l.Words) > 0 && len(Text(words)) > MostLine {
		words, err = l.all(nil)
		err = cmp.Or(err, fmt.Errorf("the image's words are left out of the command line, which would have more than %d bytes with them", MostLine))
	}
	if n := len(Text(words)); n > usualLine {
		err = cmp.Or(err, fmt.Errorf("the command line has %d bytes, and most kernels take only %d: its last words, the node's own, will be missing", n, usualLine))
	}
	return words, err
}

func (l *Line) all(image []string) (words []Word, err error) {
	own, err := splitWords(l.Own)
	if err != nil {
		own, err = nil, fmt.Errorf("the node's own words %q are left out of the command line: %w", l.Own, err)
	}
	image, imageInit := cutInit(image)
	own, ownInit := cutInit(own)
	own, overlays := l.cutOverlays(own)
	theirs, images, server := keysOf(own), keysOf(image), map[string]bool{}
	ours := l.ours()
	if (theirs["rootnfsd.overlay"] || images["rootnfsd.overlay"]) && l.Version != "" && !l.Draft {
		ours = append(ours, Word{
			Text: fmt.Sprintf("rootnfsd.version=%016x", l.FSID), By: ByServer, Why: "what an overlay that lasts was made over, whatever files the node has of its own",
		})
	}
	for _, w := range ours {
		server[keyOf(w.Text)] = true
	}
	for i, why := range localWords(image) {
		w := Word{Text: image[i], By: ByImage, Why: why, LeftOut: true}
		key := keyOf(w.Text)
		switch {
		case why != "":
		case l.Draft && laysOverlay(w.Text):
			w.Why = ofOverlay
		case theirs[key]:
			w.Why = "the node's own stands instead"
		case server[key] && !yields(key) || key == "overlayroot" || key == "nfsroot" || key == "ip":
			w.Why = "the server's stands instead"
		default:
			w.LeftOut, w.Why = false, cmp.Or(meanings[key], "the image has it")
		}
		words = append(words, w)
	}
	for _, w := range ours {
		key := keyOf(w.Text)
		if theirs[key] || key == "overlayroot" && theirs["rootnfsd.overlay"] {
			w.LeftOut, w.Why = true, "the node's own stands instead"
		} else if images[key] && yields(key) {
			w.LeftOut, w.Why = true, "the image's stands instead"
		}
		words = append(words, w)
	}
	for _, text := range overlays {
		words = append(words, Word{Text: text, By: ByNode, Why: ofOverlay, LeftOut: true})
	}
	for _, text := range own {
		words = append(words, Word{Text: text, By: ByNode, Why: cmp.Or(meanings[keyOf(text)], "the node has it (rootnfsd node set --cmdline)")})
	}
	if len(imageInit)+len(ownInit) > 0 {
		by := ByImage
		if len(imageInit) == 0 {
			by = ByNode
		}
		words = append(words, Word{Text: "--", By: by, Why: "what follows is for init"})
		for _, text := range imageInit {
			words = append(words, Word{Text: text, By: ByImage, Why: "for init"})
		}
		for _, text := range ownInit {
			words = append(words, Word{Text: text, By: ByNode, Why: "for init"})
		}
	}
	return words, err
}

// cutOverlays cuts out of a node's own words those by which it would not write to its draft.
func (l *Line) cutOverlays(own []string) (kept, cut []string) {
	for _, text := range own {
		if l.Draft && laysOverlay(text) {
			cut = append(cut, text)
		} else {
			kept = append(kept, text)
		}
	}
	return kept, cut
}

// yields reports whether the server's word gives way to the image's about the same: nothing that nodes need to find their root does.
func yields(key string) bool { return key == "panic" }

func keysOf(words []string) map[string]bool {
	keys := map[string]bool{}
	for _, w := range words {
		keys[keyOf(w)] = true
	}
	return keys
}

// Text returns the command line that words make, without an end of line.
func Text(words []Word) string {
	var texts []string
	for _, w := range words {
		if !w.LeftOut {
			texts = append(texts, w.Text)
		}
	}
	return strings.Join(texts, " ")
}

// meanings are what words do that images and nodes often have.
var meanings = map[string]string{
	"console":                         "messages go there",
	"quiet":                           "few messages at boot",
	"splash":                          "a picture at boot instead of messages",
	"logo.nologo":                     "no picture at boot",
	"plymouth.ignore_serial_consoles": "a picture at boot also where there is a serial console",
	"cfg80211.ieee80211_regdom":       "the country whose rules wireless networks keep to",
	"net.ifnames":                     "how network cards are named",
	"panic":                           "boot again so many seconds after the kernel gave up",
	"init":                            "what is started first in the root",
	"systemd.unit":                    "what systemd starts",
	"ds":                              "where cloud-init finds its settings",
	"cgroup_enable":                   "what control groups can limit",
	"cgroup_memory":                   "control groups can limit memory",
	"ip":                              "how the network is set up before there is a root",
	"overlayroot":                     "where changes to the root go",
	"modprobe.blacklist":              "modules that are not loaded",
}

// script returns the command line in a script of iPXE that boots a kernel and its initramfs beside the script. Words that iPXE
// would not pass on are left out: the error names them.
func script(words []Word) (string, error) {
	var passed, refused []string
	for _, w := range words {
		switch {
		case w.LeftOut:
		case strings.Contains(w.Text, "${") || w.Text == "||" || w.Text == "&&" || w.Text == ";" || strings.HasPrefix(w.Text, "#"):
			refused = append(refused, w.Text)
		default:
			passed = append(passed, w.Text)
		}
	}
	var err error
	if len(refused) > 0 {
		err = errors.New("words of the command line are left out, which mean something else to iPXE: " + strings.Join(refused, " "))
	}
	return fmt.Sprintf("#!ipxe\nkernel %s initrd=%s %s\ninitrd %s\nboot\n", kernelFile, initramfsFile, strings.Join(passed, " "), initramfsFile), err
}
