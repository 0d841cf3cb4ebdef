package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootFiles are what is in /boot/firmware of a version, as Raspberry Pi OS has it; their content says of which version they are.
var bootFiles = []string{
	"bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat", "config.txt",
	"bcm2710-rpi-3-b.dtb", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb", "overlays/vc4-kms-v3d-pi4.dtbo", "overlays/vc4-kms-v3d-pi5.dtbo",
	"kernel8.img", "kernel_2712.img", "initramfs8", "initramfs_2712",
}

// bootContent is the content of a boot file: some of them fill their last block.
func bootContent(version, name string) string {
	size := map[string]int{"kernel8.img": 300_000, "initramfs8": 1024 * 100, "start4.elf": 1024, "config.txt": 40}[name]
	return strings.Repeat(version+" "+name+"\n", 3+size/10)[:max(size, 20)]
}

// serveBootFiles serves v1 and v2 to nodes on loopback, and promotes v1.
func serveBootFiles(t *testing.T, more files) (*fleet, netip.AddrPort) {
	t.Helper()
	versions := map[string]files{}
	for _, v := range []string{"v1", "v2"} {
		versions[v] = files{"etc/issue": v, "boot/firmware/cmdline.txt": "console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootfstype=ext4 fsck.repair=yes rootwait quiet\n"}
		for _, name := range bootFiles {
			versions[v]["boot/firmware/"+name] = bootContent(v, name)
		}
		for path, content := range more {
			versions[v][path] = content
		}
	}
	f := &fleet{t: t, store: newStore(t, versions)}
	f.at = "--export=" + f.store
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	return f, freeUDP(t)
}

// freeUDP is a free port of loopback.
func freeUDP(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(freeAddr(t))
}

// replay asks for the files of a recording, and expects them to be those of a version.
func (f *firmware) replay(steps []step, version string) {
	f.t.Helper()
	for _, s := range steps {
		got, err := f.fetch(s.transfer)
		name := s.name[strings.IndexByte(s.name, '/')+1:]
		want := bootContent(version, name)
		switch {
		case s.missing:
			if refusal(err) != 1 {
				f.t.Errorf("%s: %q, %v; want it not found", s.name, got, err)
			}
		case s.abort:
			if err != errAborted {
				f.t.Errorf("%s: %v; want the options answered", s.name, err)
			}
		case err != nil:
			f.t.Errorf("%s: %v", s.name, err)
		case name == "cmdline.txt":
			want = "nfsroot=127.0.0.1:/images@" + version + ","
			if line := string(got); !strings.Contains(line, want) || !strings.Contains(line, "console=tty1 ") || strings.Contains(line, "PARTUUID") {
				f.t.Errorf("%s: %q; want %s in it", s.name, line, want)
			}
		case string(got) != want:
			f.t.Errorf("%s: %d bytes, %.20q; want %d, %.20q", s.name, len(got), got, len(want), want)
		}
	}
}

// TestFirmware has Raspberry Pis boot: what they ask for, in the order and the bytes in which they do, with transfers that they give up and
// repeat. A promote in the middle of a boot mixes nothing.
func TestFirmware(t *testing.T) {
	f, at := serveBootFiles(t, nil)
	f.start("--tftp", at.String())
	for i, model := range []string{"pi3", "pi4", "pi5"} {
		t.Run(model, func(t *testing.T) {
			cli(t, "promote", "v1", "--force", f.at)
			serial := fmt.Sprintf("0660cd%02x", i)
			pi := &firmware{t, at, netip.AddrFrom4([4]byte{127, 1, 1, byte(i)})}
			steps := recording(t, "testdata/netboot/"+model+".txt", serial)
			half := len(steps) / 2
			pi.replay(steps[:half], "v1")
			type state struct{ Name, Serial, State string }
			if got, want := fmt.Sprint(cliJSON[[]state](t, "nodes", pi.local.String(), f.at)), fmt.Sprint([]state{{"", serial, "new"}}); got != want {
				t.Errorf("nodes, before its first root: %s; want %s", got, want)
			}
			cli(t, "promote", "v2", "--force", f.at)
			pi.replay(steps[half:], "v1")
			n := &fleetNode{address: pi.local}
			if got, err := f.bootOne(n); got != "v1" || err != nil {
				t.Errorf("the root is %q, %v; want v1", got, err)
			}
			pi.replay(steps, "v2")
			if got, err := f.bootOne(n); got != "v2" || err != nil {
				t.Errorf("the root of the next boot is %q, %v; want v2", got, err)
			}
			// A node that does not come as far as to mount its root, and begins anew.
			for _, version := range []string{"v1", "v2"} {
				cli(t, "promote", version, "--force", f.at)
				pi.replay(steps, version)
			}
			type node struct{ Name, Address, Serial, State, Promised string }
			got := fmt.Sprint(cliJSON[[]node](t, "nodes", pi.local.String(), f.at))
			if want := fmt.Sprint([]node{{"", pi.local.String(), serial, "booting", "v2"}}); got != want {
				t.Errorf("nodes: %s; want %s", got, want)
			}
		})
	}
	f.stop()
	if log := f.log.String(); strings.Contains(log, "Early") || strings.Contains(log, "transfer") {
		t.Errorf("what is usual is logged as a failure:\n%s", log)
	}
}

// TestTFTPClients fetches with the programs that people have.
func TestTFTPClients(t *testing.T) {
	require(t, "tftp", "atftp", "curl", "busybox")
	f, at := serveBootFiles(t, nil)
	f.start("--tftp", at.String())
	port := fmt.Sprint(at.Port())
	for name, command := range map[string][]string{
		"tftp-hpa":            {"tftp", "-m", "binary", "127.0.0.1", port, "-c", "get", "kernel8.img", "FILE"},
		"atftp":               {"atftp", "--get", "--remote-file", "kernel8.img", "--local-file", "FILE", "127.0.0.1", port},
		"atftp, with options": {"atftp", "--option", "blksize 1428", "--option", "tsize 0", "--option", "timeout 3", "--option", "windowsize 16", "--get", "--remote-file", "kernel8.img", "--local-file", "FILE", "127.0.0.1", port},
		"curl":                {"curl", "--silent", "--show-error", "--tftp-blksize", "1468", "--output", "FILE", "tftp://127.0.0.1:" + port + "/kernel8.img"},
		"curl, no options":    {"curl", "--silent", "--show-error", "--tftp-no-options", "--output", "FILE", "tftp://127.0.0.1:" + port + "/kernel8.img"},
		"busybox":             {"busybox", "tftp", "-g", "-b", "1428", "-r", "kernel8.img", "-l", "FILE", "127.0.0.1", port},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			for i := range command {
				command[i] = strings.Replace(command[i], "FILE", file, 1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if r := finish(t, exec.CommandContext(ctx, command[0], command[1:]...)); r.status != 0 {
				t.Errorf("%q: exit status %d\n%s%s", command, r.status, r.stdout, r.stderr)
			}
			if got, want := readFile(t, file), bootContent("v1", "kernel8.img"); got != want {
				t.Errorf("%d bytes; want %d", len(got), len(want))
			}
		})
	}
}

// TestBootFilesOfOthers is what a network full of mistakes and malice asks for.
func TestBootFilesOfOthers(t *testing.T) {
	f, at := serveBootFiles(t, files{"etc/shadow": "secret", "boot/firmware/long": strings.Repeat("x", 5000)})
	for link, to := range map[string]string{"shadow": "../../../../etc/shadow", "host": "/etc/hostname", "self": "self", "indirect": "kernel8.img"} {
		if err := os.Symlink(to, filepath.Join(f.store, "v1/boot/firmware", link)); err != nil {
			t.Fatal(err)
		}
	}
	cli(t, "seal", "v1", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	f.start("--tftp", at.String())
	pi := &firmware{t, at, netip.MustParseAddr("127.1.2.1")}
	plain := func(words ...string) transfer { return transfer{packet: ask(tftpRead, words...), block: 512} }
	t.Run("refused at once", func(t *testing.T) {
		for name, x := range map[string]transfer{
			"traversal":                plain("../../etc/shadow", "octet"),
			"traversal below a name":   plain("0660cd37/../../../etc/shadow", "octet"),
			"absolute":                 plain("/etc/shadow", "octet"),
			"a path of the host":       plain("/proc/self/environ", "octet"),
			"a link that climbs":       plain("shadow", "octet"),
			"a link out of the tree":   plain("host", "octet"),
			"a link to itself":         plain("self", "octet"),
			"a directory":              plain("overlays", "octet"),
			"nothing":                  plain("", "octet"),
			"a write":                  {packet: ask(tftpWrite, "kernel8.img", "octet"), block: 512},
			"500 bytes":                plain(strings.Repeat("x", 500), "octet"),
			"500 bytes of directories": plain(strings.Repeat("a/", 250), "octet"),
			"a mode that is none":      plain("kernel8.img", "mail"),
			"other bytes":              plain("\xff\xfe\n\x1b[31m", "octet"),
		} {
			got, err := pi.fetch(x)
			if refusal(err) < 0 {
				t.Errorf("%s: %.40q, %v; want an error", name, got, err)
			}
		}
	})
	t.Run("absurd options stop no boot", func(t *testing.T) {
		for _, options := range [][]string{
			{"blksize", "0"}, {"blksize", "-1"}, {"blksize", "99999999999999999999"}, {"blksize", ""}, {"blksize", "x"},
			{"timeout", "0"}, {"timeout", "256"}, {"windowsize", "0"}, {"windowsize", "x"}, {"tsize", "-5"}, {"tsize", "99999999999999999999"},
			{"nonsense", "1"}, {"", ""}, {"tsize"}, {"tsize", "0", "tsize", "0", "tsize", "0"},
		} {
			got, err := pi.fetch(plain(append([]string{"long", "octet"}, options...)...))
			if err != nil || string(got) != strings.Repeat("x", 5000) {
				t.Errorf("%q: %d bytes, %v", options, len(got), err)
			}
		}
		if got, err := pi.fetch(plain("indirect", "OCTET")); err != nil || string(got) != bootContent("v1", "kernel8.img") {
			t.Errorf("a link in the directory: %d bytes, %v", len(got), err)
		}
	})
	t.Run("half-open transfers", func(t *testing.T) {
		before := resident(t, f.serve.Process.Pid)
		ask := plain("kernel8.img", "octet", "tsize", "0", "blksize", "1024").packet
		junk := make([]byte, 600)
		for i := range 10_000 {
			conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, byte(i >> 8), byte(i)}), 0)), net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			for j := range junk {
				junk[j] = byte(rand.Uint32())
			}
			conn.Write(ask)
			conn.Write(junk[:rand.IntN(len(junk))])
			conn.Close()
			if i%1000 == 0 {
				if got, err := pi.fetch(plain("long", "octet")); err != nil || len(got) != 5000 {
					t.Fatalf("after %d: %d bytes, %v", i, len(got), err)
				}
			}
		}
		if after := resident(t, f.serve.Process.Pid); after > before+32<<20 {
			t.Errorf("the server has grown from %d MiB to %d", before>>20, after>>20)
		}
	})
	t.Run("a spoofed port", func(t *testing.T) {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, 2, 2)})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		buf := make([]byte, 1024)
		n, from := 0, netip.AddrPort{}
		for tries := 0; n == 0 && tries < 20; tries++ { // what was sent before may still fill the server's queue
			conn.WriteToUDPAddrPort(plain("long", "octet").packet, at)
			conn.SetReadDeadline(time.Now().Add(time.Second))
			n, from, err = conn.ReadFromUDPAddrPort(buf)
		}
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if err != nil || n != 516 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		other, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, 2, 2)}, net.UDPAddrFromAddrPort(from))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for _, packet := range [][]byte{{0, tftpError, 0, 0, 'x', 0}, {0, tftpAck, 0, 1}, {0, tftpAck, 0, 9}} {
			other.Write(packet)
		}
		for block := byte(1); ; block++ {
			if buf[3] != block || !bytes.Equal(buf[4:n], bytes.Repeat([]byte("x"), n-4)) {
				t.Fatalf("block %d where %d is due", buf[3], block)
			}
			conn.WriteToUDPAddrPort([]byte{0, tftpAck, 0, block}, from)
			if n < 516 {
				break
			}
			if n, from, err = conn.ReadFromUDPAddrPort(buf); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a serial number at two addresses", func(t *testing.T) {
		cli(t, "node", "set", "pi-01", "--address", "127.1.2.3", "--serial", "0660cd37", f.at)
		for _, c := range []struct {
			address string
			own     bool
		}{{"127.1.2.3", true}, {"127.1.2.4", false}} {
			pi := &firmware{t, at, netip.MustParseAddr(c.address)}
			line, err := pi.fetch(plain("0660cd37/cmdline.txt", "octet"))
			if err != nil || !strings.Contains(string(line), "systemd.hostname=pi-01") || strings.Contains(string(line), "systemd.machine_id=") != c.own {
				t.Errorf("%s gets %q, %v; want its machine-id: %v", c.address, line, err, c.own)
			}
		}
	})
	f.stop()
	for _, want := range []string{"at another address before", "/boot/firmware/host -> /etc/hostname", "/boot/firmware/shadow -> ../../../../etc/shadow"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q:\n%.4000s", want, &f.log)
		}
	}
}

// TestNoBootFiles: an image without them, and words that are none.
func TestNoBootFiles(t *testing.T) {
	f := &fleet{t: t, store: newStore(t, map[string]files{
		"none": {"etc/issue": "none"},
		"junk": {"etc/issue": "junk", "boot/firmware/cmdline.txt": "\x00\x01\xff binary", "boot/firmware/config.txt": "x"},
	})}
	f.at = "--export=" + f.store
	cli(t, "seal", f.at)
	cli(t, "promote", "none", "--force", f.at)
	at := freeUDP(t)
	f.start("--tftp", at.String())
	pi := &firmware{t, at, netip.MustParseAddr("127.1.3.1")}
	pi.replay(recording(t, "testdata/netboot/pi4-none.txt", "0660cd37"), "none")
	cli(t, "promote", "junk", "--force", f.at)
	pi.local = netip.MustParseAddr("127.1.3.2")
	got, err := pi.fetch(transfer{packet: ask(tftpRead, "cmdline.txt", "octet"), block: 512})
	if err != nil || !bytes.HasPrefix(got, []byte("root=/dev/nfs ")) || bytes.ContainsAny(got, "\x00\x01\xff") {
		t.Errorf("a cmdline.txt of junk: %q, %v", got, err)
	}
	f.stop()
	for _, want := range []string{"boot", "cmdline.txt"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &f.log)
		}
	}
}

// resident is how much memory a process has.
func resident(t *testing.T, pid int) int {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal(errors.New("no VmRSS"))
	return 0
}
