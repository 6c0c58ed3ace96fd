package attacks

import (
	"fmt"
	"os"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
)

// role is the environment variable that makes the test's binary another process of it.
const role = "SLUICE_ATTACK_ROLE"

func TestMain(m *testing.M) {
	switch r := os.Getenv(role); r {
	case "":
		leak.Main(m)
	case "server":
		serve()
	default:
		attack, ok := attacks[r]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such attack:", r)
			os.Exit(2)
		}
		attack.run(&attacker{addr: os.Args[1]})
	}
}
