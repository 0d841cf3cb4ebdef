package hostlist

import (
	"slices"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	for list, want := range map[string]string{
		"pi-01":                  "pi-01",
		"pi-[01-03]":             "pi-01 pi-02 pi-03",
		"pi-[1-3,7],head":        "pi-1 pi-2 pi-3 pi-7 head",
		" a , b ":                "a b",
		"rack[1-2]-pi[08-10]":    "rack1-pi08 rack1-pi09 rack1-pi10 rack2-pi08 rack2-pi09 rack2-pi10",
		"n[9-11]":                "n9 n10 n11",
		"n[09-11]":               "n09 n10 n11",
		"a,b,a":                  "a b",
		"[1-2]x":                 "1x 2x",
		"192.0.2.[7-8],fe80::1":  "192.0.2.7 192.0.2.8 fe80::1",
		"pi-[ 01 - 02 ]":         "",
		"":                       "",
		"a,":                     "",
		"a[1":                    "",
		"a]1":                    "",
		"a[[1]]":                 "",
		"a[]":                    "",
		"a[x]":                   "",
		"a[1-x]":                 "",
		"a[3-1]":                 "",
		"a[-1]":                  "",
		"a[+1-2]":                "",
		"a[1-99999999999]":       "",
		"a[0-70000]":             "",
		"a[0-999]b[0-999]":       "",
		"a[0-999,0-999,0-65535]": "",
	} {
		names, err := Expand(list)
		if got := strings.Join(names, " "); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", list, got, err, want)
		}
		if err != nil && list != "" && !strings.Contains(err.Error(), list) {
			t.Errorf("%q: the error does not name the list: %v", list, err)
		}
	}
}

func TestCompress(t *testing.T) {
	for list, names := range map[string][]string{
		"":                            nil,
		"a":                           {"a"},
		"pi-[01-03],pi-07":            {"pi-01", "pi-02", "pi-03", "pi-07"},
		"pi-[9-10]":                   {"pi-9", "pi-10"},
		"pi-[08-10]":                  {"pi-08", "pi-09", "pi-10"},
		"pi-09,pi-10x":                {"pi-09", "pi-10x"},
		"pi-9,pi-010":                 {"pi-9", "pi-010"},
		"x,x[1-2]":                    {"x", "x1", "x2"},
		"n99999999999999,n[1-2]":      {"n99999999999999", "n1", "n2"},
		"192.0.2.[7-8],192.0.2.255":   {"192.0.2.7", "192.0.2.8", "192.0.2.255"},
		"rack1-pi[1-2],rack2-pi[1-2]": {"rack1-pi1", "rack1-pi2", "rack2-pi1", "rack2-pi2"},
	} {
		if got := Compress(names); got != list {
			t.Errorf("%v: %s, want %s", names, got, list)
		}
		if list == "" {
			continue
		}
		if back, err := Expand(Compress(names)); err != nil || !slices.Equal(back, names) {
			t.Errorf("%v came back as %v, %v", names, back, err)
		}
	}
}

// FuzzExpand looks for lists that take too much, and for names that do not come
// back.
func FuzzExpand(f *testing.F) {
	f.Add("pi-[01-03,07],head")
	f.Add("a[0-9]b[1,2]")
	f.Fuzz(func(t *testing.T, list string) {
		names, err := Expand(list)
		if err != nil {
			return
		}
		if len(names) > Most {
			t.Fatalf("%d names", len(names))
		}
		if strings.ContainsAny(strings.Join(names, ""), "[], \t\n\v\f\r\u0085\u00a0") {
			return // blanks within a name, which inventories refuse
		}
		back, err := Expand(Compress(names))
		if err != nil || !slices.Equal(back, names) {
			t.Fatalf("%q: %v came back as %v, %v", list, names, back, err)
		}
	})
}
