package lint

import (
	"path"
	"strings"
)

// aptPeriodic returns what the settings of apt say about APT::Periodic, by the
// names of its options in lower case.
func (c *checker) aptPeriodic() (map[string]string, error) {
	files, err := c.dropIns("", "/etc/apt/apt.conf.d")
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	err = each(append(files, "/etc/apt/apt.conf"), func(p string) error {
		if ext := path.Ext(p); ext != "" && ext != ".conf" || strings.Contains(p, "~") {
			return nil // apt reads no others: what dpkg or an editor puts aside
		}
		text, err := c.read(p)
		parseApt(text, "apt::periodic::", set)
		return err
	})
	return set, err
}

// parseApt reads settings of apt (apt.conf(5)) into a map: those whose names begin
// with a prefix, which is in lower case, as names are the same in either case.
// Scopes may be opened name by name, so that
//
//	APT { Periodic { Enable "1"; }; };
//
// says APT::Periodic::Enable.
func parseApt(text, prefix string, into map[string]string) {
	const other = "/" // a scope that the prefix does not lead into
	scopes := []string{""}
	var words []string // of a setting, the first two
	for token, rest := aptToken(text); token != ""; token, rest = aptToken(rest) {
		if token != "{" && token != "}" && token != ";" {
			if len(words) < 2 {
				words = append(words, strings.Trim(token, `"`))
			}
			continue
		}
		name := scopes[len(scopes)-1]
		if len(words) > 0 {
			name += strings.ToLower(words[0])
		}
		switch token {
		case "{":
			if name += "::"; !strings.HasPrefix(prefix, name) {
				name = other
			}
			scopes = append(scopes, name)
		case "}":
			scopes = scopes[:max(1, len(scopes)-1)]
		default:
			if key, ok := strings.CutPrefix(name, prefix); ok && len(words) > 1 {
				into[key] = words[1]
			}
		}
		words = nil
	}
}

// aptToken returns the next token of some settings, "" if there is none, and what
// comes behind it: a word, one in quotes with them, or a character that means something.
func aptToken(text string) (token, rest string) {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		end := ""
		switch {
		case text == "":
			return "", ""
		case strings.HasPrefix(text, "//"), text[0] == '#':
			end = "\n"
		case strings.HasPrefix(text, "/*"):
			end = "*/"
		case text[0] == '"':
			length := 1 + strings.IndexByte(text[1:], '"')
			if length == 0 {
				return text, ""
			}
			return text[:length+1], text[length+1:]
		case strings.ContainsRune("{};", rune(text[0])):
			return text[:1], text[1:]
		default:
			length := strings.IndexAny(text, "{};\" \t\r\n")
			if length < 0 {
				length = len(text)
			}
			return text[:length], text[length:]
		}
		_, text, _ = strings.Cut(text, end)
	}
}
