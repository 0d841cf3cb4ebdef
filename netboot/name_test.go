package netboot_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/netboot"
	"github.com/rootnfsd/rootnfsd/netboot/tftp"
)

func TestNames(t *testing.T) {
	serial, mac := exports.BootID{Serial: "0660cd37"}, exports.BootID{MAC: "dc:a6:32:01:36:c2"}
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name string
		id   exports.BootID
		want string // the path; empty for an error
	}{
		{"config.txt", exports.BootID{}, "config.txt"},
		{"/config.txt", exports.BootID{}, "config.txt"},
		{"overlays/vc4-kms-v3d.dtbo", exports.BootID{}, "overlays/vc4-kms-v3d.dtbo"},
		{"0660cd37/start4.elf", serial, "start4.elf"},
		{"0660CD37/start4.elf", serial, "start4.elf"},
		{"100000000660cd37/start4.elf", serial, "start4.elf"},
		{"0660cd37/overlays/a.dtbo", serial, "overlays/a.dtbo"},
		{"//.//0660cd37/./start4.elf", serial, "start4.elf"},
		{"dc-a6-32-01-36-c2/config.txt", mac, "config.txt"},
		{"DC-A6-32-01-36-C2/config.txt", mac, "config.txt"},
		{"dc:a6:32:01:36:c2/config.txt", mac, "config.txt"},
		{"01-dc-a6-32-01-36-c2/config.txt", mac, "config.txt"},
		// A file of such a name, and what only looks like one.
		{"0660cd37", exports.BootID{}, "0660cd37"},
		{"0660cd37/", exports.BootID{}, "0660cd37"},
		{"0660cd3/x", exports.BootID{}, "0660cd3/x"},
		{"0660cd3g/x", exports.BootID{}, "0660cd3g/x"},
		{"dc-a6-32-01-36:c2/x", exports.BootID{}, "dc-a6-32-01-36:c2/x"},
		{"dcxa6x32x01x36xc2/x", exports.BootID{}, "dcxa6x32x01x36xc2/x"},
		{"02-dc-a6-32-01-36-c2/x", exports.BootID{}, "02-dc-a6-32-01-36-c2/x"},
		{"01-dc:a6:32:01:36:c2/x", exports.BootID{}, "01-dc:a6:32:01:36:c2/x"},
		{`0660cd37\start4.elf`, exports.BootID{}, `0660cd37\start4.elf`},
		{long, exports.BootID{}, long},
		{"..start", exports.BootID{}, "..start"},
		{"..", exports.BootID{}, ""},
		{"../etc/shadow", exports.BootID{}, ""},
		{"0660cd37/../../etc/shadow", exports.BootID{}, ""},
		{"overlays/..", exports.BootID{}, ""},
		{long + "n", exports.BootID{}, ""},
		{"a\x00b", exports.BootID{}, ""},
		{"/", exports.BootID{}, ""},
		{"./.", exports.BootID{}, ""},
	} {
		id, _, names, err := netboot.ParseName(c.name)
		var told *tftp.Error
		if c.want == "" {
			if !errors.As(err, &told) {
				t.Errorf("%q: %v, %v; want an error for the client", c.name, names, err)
			}
			continue
		}
		if got := strings.Join(names, "/"); err != nil || id != c.id || got != c.want {
			t.Errorf("%q: %+v %q, %v; want %+v %q", c.name, id, got, err, c.id, c.want)
		}
	}
}

func TestSteps(t *testing.T) {
	for step, names := range map[exports.BootStep]string{
		exports.BootFirst: "bootcode.bin start.elf start4.elf start4cd.elf config.txt boot.ipxe bootx64.efi BOOTAA64.EFI",
		exports.BootLast:  "cmdline.txt kernel.img kernel8.img kernel_2712.img vmlinuz vmlinuz-6.1.0 Image u-boot.bin u-boot-rpi4.bin",
		exports.BootAny:   "fixup4.dat initramfs8 initrd.img bcm2711-rpi-4-b.dtb bootsig.bin recovery.elf image.gz",
	} {
		for name := range strings.FieldsSeq(names) {
			if got := netboot.StepOf(name); got != step {
				t.Errorf("%s: step %d; want %d", name, got, step)
			}
		}
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"0660cd37/start4.elf", "dc-a6-32-01-36-c2/x", "01-dc-a6-32-01-36-c2/x", "../../etc/shadow", "/./a//b", "a\x00b", strings.Repeat("a/", 250)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		id, who, names, err := netboot.ParseName(name)
		if err != nil {
			return
		}
		if len(names) == 0 || slices.Contains(names, "..") || slices.Contains(names, "") || slices.Contains(names, ".") {
			t.Errorf("%q: path %q", name, names)
		}
		for _, n := range names {
			if strings.ContainsAny(n, "/\x00") || len(n) > 255 {
				t.Errorf("%q: component %q", name, n)
			}
		}
		if (who == "") != (id == exports.BootID{}) {
			t.Errorf("%q: %q is %+v", name, who, id)
		}
		// What is clean already means the same.
		again, _, rest, err := netboot.ParseName(strings.Join(append([]string{who}, names...), "/"))
		if who != "" && (err != nil || again != id || !slices.Equal(rest, names)) {
			t.Errorf("%q: %+v %q; then %+v %q, %v", name, id, names, again, rest, err)
		}
		if id.Serial != "" && len(id.Serial) != 8 || id.MAC != "" && len(id.MAC) != 17 || fmt.Sprint(id) != strings.ToLower(fmt.Sprint(id)) {
			t.Errorf("%q: %+v", name, id)
		}
	})
}
