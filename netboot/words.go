package netboot

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/rootnfsd/rootnfsd/fs"
)

// mostText is how long a cmdline.txt may be, and a config.txt, in bytes.
const mostText = 64 << 10

// ImageWords returns the words that an image has for its kernel's command line, in the cmdline.txt of its boot directory. The error says why
// there are none, though there may be a file.
func ImageWords(tree fs.Tree) ([]string, error) {
	dir, err := bootDir(tree)
	if err != nil {
		return nil, err
	}
	return dir.words(commandLineFile)
}

// holdsCommandLine reports whether the directory's config.txt names a file in place of cmdline.txt (cmdline=). Which sections of it
// count for the node is left aside; a prefix for all files (os_prefix=) may come before the name.
func (dir *spot) holdsCommandLine(names []string) bool {
	f, err := dir.regular(configFile)
	if err != nil {
		return false
	}
	content, err := f.read(mostText)
	if err != nil {
		return false
	}
	return namesCommandLine(string(content), path.Join(names...))
}

// namesCommandLine reports whether a config.txt names the file at a path in place of cmdline.txt.
func namesCommandLine(config, asked string) bool {
	asked = "/" + asked
	for line := range strings.SplitSeq(config, "\n") {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "cmdline=")
		if name = path.Clean("/" + name); ok && name != "/" && name != "/"+configFile && strings.HasSuffix(asked, name) {
			return true
		}
	}
	return false
}

// words returns those in a file of a directory.
func (dir *spot) words(name string) ([]string, error) {
	f, err := dir.regular(name)
	var content []byte
	if err == nil {
		content, err = f.read(mostText)
	}
	if errors.Is(err, fs.ErrTooLarge) {
		err = fmt.Errorf("it has more than %d bytes", mostText)
	}
	var words []string
	if err == nil {
		words, err = parseCmdline(string(content))
	}
	if err != nil {
		return nil, fmt.Errorf("the command line in %s is left out: %w", path.Join(dir.path(), name), err)
	}
	return words, nil
}

// parseCmdline returns the words in a cmdline.txt. Only the first line counts that has any, as for the firmware of a Raspberry Pi.
func parseCmdline(content string) ([]string, error) {
	for line := range strings.SplitSeq(strings.TrimPrefix(content, "\ufeff"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, errors.New("it is no text")
		}
		return splitWords(line)
	}
	return nil, nil
}

// splitWords splits a command line as the kernel does (next_arg in lib/cmdline.c): a space between quotes separates nothing.
func splitWords(line string) ([]string, error) {
	var words []string
	start, quoted := -1, false
	for i := range len(line) {
		switch c := line[i]; {
		case !quoted && (c == ' ' || c == '\t'):
			if start >= 0 {
				words = append(words, line[start:i])
			}
			start = -1
			continue
		case c == '"':
			quoted = !quoted
		}
		if start < 0 {
			start = i
		}
	}
	if quoted {
		return nil, errors.New("it has a quote that does not end")
	}
	if start >= 0 {
		words = append(words, line[start:])
	}
	return words, nil
}

// keyOf returns what a word is about: what is before the first "=", where the kernel takes dashes for underscores; ro and rw are
// one matter.
func keyOf(word string) string {
	key, _, _ := strings.Cut(strings.TrimPrefix(word, `"`), "=")
	key = strings.ReplaceAll(strings.Trim(key, `"`), "-", "_")
	if key == "ro" {
		return "rw"
	}
	return key
}

func valueOf(word string) string {
	_, value, _ := strings.Cut(word, "=")
	return strings.Trim(value, `"`)
}

// cutInit splits words at "--", behind which they are for init.
func cutInit(words []string) (kernel, init []string) {
	for i, w := range words {
		if w == "--" {
			return words[:i], words[i+1:]
		}
	}
	return words, nil
}

// Reasons to leave out words.
const (
	ofDisk      = "belongs to a root on a local disk"
	ofOverlay   = "a draft is written to: nothing lies over it"
	ofFirstBoot = "belongs to the first boot from a card, which would change the root and boot again"
)

// localKeys are words that make no sense without a local disk.
var localKeys = map[string]string{
	"root": ofDisk, "rootfstype": ofDisk, "rootflags": ofDisk, "rootwait": ofDisk, "rootdelay": ofDisk,
	"resume": ofDisk, "resume_offset": ofDisk,
	"resize": ofFirstBoot,
}

// laysOverlay reports whether a word lays an overlay over the root, or makes that read-only.
func laysOverlay(word string) bool {
	switch keyOf(word) {
	case "overlayroot", "rootnfsd.overlay", "overlaytmpfs", "overlaytmpfsflags":
		return true
	case "init":
		return path.Base(valueOf(word)) == "init-overlay"
	default:
		return word == "ro"
	}
}

// localWords says of each word why it is left out, if it is: because it is about a local disk, or about
// the first boot of a card, which resizes a file system that is not there.
func localWords(words []string) []string {
	imager := false // Raspberry Pi Imager has left its script, and words that go with it
	for _, w := range words {
		imager = imager || keyOf(w) == "systemd.run" && strings.HasPrefix(path.Base(valueOf(w)), "firstrun.sh")
	}
	whys := make([]string, len(words))
	for i, w := range words {
		key, value := keyOf(w), valueOf(w)
		switch {
		case localKeys[key] != "":
			whys[i] = localKeys[key]
		case strings.HasPrefix(key, "fsck."):
			whys[i] = ofDisk
		case key == "boot" && value != "nfs": // an initramfs would look there for its root: overlay, live, casper
			whys[i] = ofDisk
		case key == "init" && isFirstBoot(value):
			whys[i] = ofFirstBoot
		case imager && (key == "systemd.run" || key == "systemd.run_success_action" || key == "systemd.run_failure_action" ||
			key == "systemd.unit" && value == "kernel-command-line.target"):
			whys[i] = ofFirstBoot
		}
	}
	return whys
}

// isFirstBoot reports whether an init is a script that prepares a card and then boots again.
func isFirstBoot(init string) bool {
	return strings.HasPrefix(path.Base(init), "init_resize") || strings.HasPrefix(init, "/usr/lib/raspi-config/") ||
		strings.HasPrefix(init, "/usr/lib/raspberrypi-sys-mods/") || strings.HasPrefix(init, "/lib/raspberrypi-sys-mods/")
}
