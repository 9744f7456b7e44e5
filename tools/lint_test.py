#!/usr/bin/env python3
"""Each rule of the lint finds its example and leaves the clean one alone."""

import pathlib
import tempfile
import unittest

import lint
from lint_rules import calls, layers, sizes

HEADER = "// What it is.\n#pragma once\n"

# rule: (what it must find, what it must leave alone), as lines of src/target/a.cc unless said otherwise below.
CALL_EXAMPLES = {
    "clock": (["auto now = std::chrono::steady_clock::now();", "clock_gettime(CLOCK_MONOTONIC, &t);",
               "auto t = time(nullptr);", "auto t = ::time(&x);", "gettimeofday(&t, nullptr);"],
              ["int64_t time() const;", "x = clock.now();", "// steady_clock::now()", 'log("steady_clock");']),
    "sleep": (["std::this_thread::sleep_for(d);", "usleep(5);", "::sleep(1);", "nanosleep(&a, &b);"],
              ["co_await sleep(reactor, d);", "sleeping(1);"]),
    "thread": (["std::thread t(run);", "std::jthread t(run);", "std::async(f);", "#include <thread>",
                "pthread_create(&t, 0, f, 0);", "if (::fork() == 0) run();", "std::system(text);"],
               ["std::thread::id id;", "world.fork();", "Prng fork();"]),
    "detached": (["worker.detach();"], ["node.detach_all();", "detached();"]),
    "lock": (["std::mutex m;", "std::lock_guard guard(m);", "#include <mutex>", "std::condition_variable c;"],
             ["lock(range);", "std::atomic<int> mutex_count;"]),
    "socket": (["int s = ::socket(AF_INET, SOCK_STREAM, 0);", "setsockopt(s, 1, 2, 0, 0);", "#include <sys/socket.h>",
                "int r = ::send(s, p, n, 0);", "epoll_wait(e, v, 1, 0);"],
               ["stream.send(bytes);", "send(bytes);", "Stream::connect(x);", "network::recv(x);"]),
    "file": (["int f = ::open(path, 0);", "FILE* f = fopen(path, mode);", "std::ifstream in(path);",
              "#include <fcntl.h>", "std::filesystem::path p;"],
             ["storage.open(path);", "Disk::open(path);", "open(path);"]),
    "ring": (["io_uring_submit(&ring);", "#include <liburing.h>"], ["// io_uring_submit(&ring)", "uring.submit();"]),
    "random": (["std::random_device device;", "int x = rand();", "getrandom(p, n, 0);", "srand(1);"],
               ["int x = random();", "random.next();", "operand(x);"]),
    "generator": (["std::mt19937 g(1);", "#include <random>", "std::uniform_int_distribution<int> d;"],
                  ["random.below(5);"]),
    "env": (["getenv(name);", "std::getenv(name);"], ["environment(name);"]),
    "output": (["printf(text);", "std::cerr << x;", "fmt::print(text);", "std::fputs(text, stderr);"],
               ["snprintf(p, n, text);", "imprint(text);", "fmt::format(text);"]),
    "iostream": (["#include <iostream>"], ["#include <ostream>", "// #include <iostream>"]),
    "regex": (["#include <regex>", "std::regex r;"], ["regexless(r);"]),
    "exception": (["throw 5;", "try { f(); }", "} catch (...) {"], ["bool try_push();", "retry {}", "rethrow();"]),
    "raw_new": (["auto* p = new Thing;", "auto* p = new std::byte[5];", "delete p;", "delete[] p;",
                 "f(new Thing);", "p.reset(new Thing);"],
                ["std::unique_ptr<Thing> p(new Thing(5));", "return std::unique_ptr<A<B>>(new C);",
                 "A(const A&) = delete;", "new (place) Thing;", "::operator delete(p);",
                 "void* operator new(size_t);"]),
    "assert": (["assert(x);", "#include <cassert>"], ["static_assert(x);", "FL_CHECK(x);"]),
    "volatile": (["volatile int x;"], ['asm volatile("pause");', "bool volatile_cache;"]),
    "using_namespace": (["using namespace std;"], ["using std::string;", "using namespace std::chrono_literals;"]),
    "capturing_coroutine": (["spawn([&]() -> Task<void> { co_return; });", "auto f = [a, b](int x) -> fl::Task<int> {"],
                            ["spawn([]() -> Task<void> { co_return; });", "Task<void> f();", "x[5] = task;"]),
}
HEADER_EXAMPLES = {
    "functional": (["#include <functional>", "std::function<void()> f;"], ["void function();"]),
    "using_in_header": (["using namespace chrono;"], ["using Thing = int;"]),
}
# The same text in a place where it is allowed.
ALLOWED = [("clock", "src/io/a.cc"), ("thread", "src/io/a.cc"), ("thread", "tests/a.cc"),
           ("thread", "src/async/a_test.cc"), ("lock", "bench/a.cc"), ("file", "src/cli/a.cc"),
           ("exception", "src/cli/a.cc"), ("output", "src/cli/a.cc"),
           ("generator", "src/pool/a_test.cc"), ("sleep", "bench/a.cc"),
           ("random", "src/io/a.cc"), ("ring", "src/io/a.cc")]


class LintTest(unittest.TestCase):
    def findings(self, files, complete=True):
        """Rules broken in a tree of these files, with the files around them that make a tree complete."""
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            files = dict(files)
            if complete:
                files.setdefault("LICENSE", "Apache License\n")
                for path in list(files):
                    parts = path.split("/")
                    if parts[0] == "src" and len(parts) == 3:
                        files.setdefault(f"src/{parts[1]}/README.md", "# a folder\n")
                        files.setdefault(f"src/{parts[1]}/CMakeLists.txt", "add_module(NAME a)\n")
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")
            return lint.run(root)

    def rules(self, files, complete=True):
        return {finding.rule for finding in self.findings(files, complete)}

    def check_examples(self, examples, path, prefix=""):
        for rule, (bad, good) in examples.items():
            for line in bad:
                with self.subTest(rule=rule, bad=line):
                    self.assertEqual(self.rules({path: f"{prefix}{line}\n"}), {rule})
            for line in good:
                with self.subTest(rule=rule, good=line):
                    self.assertEqual(self.rules({path: f"{prefix}{line}\n"}), set())

    def test_each_ban_has_examples(self):
        self.assertEqual(set(CALL_EXAMPLES) | set(HEADER_EXAMPLES), set(calls.BANS))

    def test_banned_calls(self):
        self.check_examples(CALL_EXAMPLES, "src/target/a.cc")

    def test_banned_in_headers(self):
        self.check_examples(HEADER_EXAMPLES, "src/target/a.h", HEADER)
        self.assertEqual(self.rules({"src/cli/a.cc": "std::function<void()> f;\n"}), set())

    def test_allowed_places(self):
        for rule, path in ALLOWED:
            for line in CALL_EXAMPLES[rule][0]:
                with self.subTest(rule=rule, path=path, line=line):
                    self.assertNotIn(rule, self.rules({path: line + "\n"}))

    def test_tests_and_the_command_line_have_bans_too(self):
        self.assertEqual(self.rules({"tests/a.cc": "usleep(1);\n"}), {"sleep"})
        self.assertEqual(self.rules({"src/cli/a.cc": "std::thread t(f);\n"}), {"thread"})

    def test_strings_and_comments_are_not_code(self):
        text = 'x = R"(throw 1; " \' )"; y = \'"\'; /* throw\n 2; */ z = 1\'000; const char* t = "a\\" throw 3;";\n'
        self.assertEqual(self.rules({"src/nvme/a.cc": text}), set())
        self.assertEqual(self.findings({"src/nvme/a.cc": text + "throw 4;\n"})[0].line, 3)

    # Exemptions

    def test_exemption_with_a_reason(self):
        self.assertEqual(self.rules({"src/nvme/a.cc": "throw 1;  // lint: allow(exception) shown to work\n"}), set())
        self.assertEqual(self.rules({"src/nvme/a.cc": "// lint: allow(exception) shown to work\nthrow 1;\n"}), set())

    def test_wrong_exemptions(self):
        for text, rules in (("throw 1;  // lint: allow(exception)\n", {"exception", "exemption"}),
                            ("throw 1;  // lint: allow(clock) why\n", {"exception", "exemption"}),
                            ("int a;  // lint: allow(nonsense) why\n", {"exemption"})):
            with self.subTest(text=text):
                self.assertEqual(self.rules({"src/nvme/a.cc": text}), rules)

    # Layers

    def test_forbidden_include(self):
        sim = {"src/sim/world.h": HEADER}
        include = '#include "sim/world.h"\n'
        self.assertEqual(self.rules({**sim, "src/engine/a.cc": include}), {"layer"})
        self.assertEqual(self.rules({**sim, "src/target/a.cc": include}), {"layer"})
        self.assertEqual(self.rules({**sim, "src/io/a_test.cc": include}), {"layer"})
        self.assertEqual(self.rules({**sim, "src/target/a_test.cc": include}), set())
        self.assertEqual(self.rules({**sim, "tests/sim/a.cc": include}), set())
        for peer in ("host", "pool", "mirror", "engine"):
            files = {f"src/{peer}/b.h": HEADER, "src/target/a.cc": f'#include "{peer}/b.h"\n'}
            self.assertEqual(self.rules(files), {"layer"}, peer)

    def test_allowed_include_is_transitive(self):
        files = {"src/base/b.h": HEADER, "src/engine/a.cc": '#include "base/b.h"\n'}
        self.assertEqual(self.rules(files), set())

    def test_forbidden_library(self):
        files = {"src/target/CMakeLists.txt": "add_module(NAME target DEPS fairlead_host)\n", "src/target/a.cc": ""}
        self.assertEqual(self.rules(files), {"layer"})
        files = {"src/target/CMakeLists.txt": "add_module(NAME target DEPS fairlead_nvme)\n", "src/target/a.cc": ""}
        self.assertEqual(self.rules(files), set())

    def test_unknown_folder_and_unknown_header(self):
        self.assertEqual(self.rules({"src/misc/a.cc": "int a;\n"}), {"layer"})
        self.assertEqual(self.rules({"src/base/a.cc": '#include "base/gone.h"\n'}), {"include_path"})
        self.assertEqual(self.rules({"src/base/a.cc": '#include "b.h"\n', "src/base/b.h": HEADER}), {"include_path"})

    def test_header_cycle(self):
        files = {"src/base/a.h": HEADER + '#include "base/b.h"\n', "src/base/b.h": HEADER + '#include "base/c.h"\n',
                 "src/base/c.h": HEADER + '#include "base/a.h"\n'}
        found = self.findings(files)
        self.assertEqual([finding.rule for finding in found], ["cycle"])
        self.assertIn("src/base/a.h -> src/base/b.h -> src/base/c.h -> src/base/a.h", found[0].message)
        files["src/base/c.h"] = HEADER
        self.assertEqual(self.rules(files), set())

    def test_folder_cycle(self):
        files = {"src/base/a.h": HEADER, "src/base/b.cc": '#include "async/d.h"\n',
                 "src/async/c.cc": '#include "base/a.h"\n', "src/async/d.h": HEADER}
        self.assertEqual(self.rules(files), {"cycle", "layer"})

    def test_the_table_itself_has_no_cycle(self):
        for folder, used in layers.MAY_USE.items():
            for name in used:
                self.assertNotIn(folder, layers.allowed_for(name))

    # Sizes

    def test_file_size(self):
        self.assertEqual(self.rules({"src/base/a.cc": "int a;\n" * 801}), {"file_size"})
        self.assertEqual(self.rules({"src/base/a.cc": "int a;\n" * 800}), set())
        self.assertEqual(self.rules({"src/base/a.h": HEADER + "int a;\n" * 399}), {"file_size"})

    def test_function_size(self):
        def with_body(lines):
            return "namespace a {\nclass B {\n  int f(int x)\n      const {\n" + "    x();\n" * lines + "  }\n};\n}\n"
        self.assertEqual(self.rules({"src/base/a.cc": with_body(67)}), set())
        found = self.findings({"src/base/a.cc": with_body(68)})
        self.assertEqual([(finding.rule, finding.line) for finding in found], [("function_size", 3)])

    def test_what_is_a_function(self):
        code = """namespace a::b {
template <typename T, class U = int>
  requires(sizeof(T) > 1)
struct alignas(64) Holder : Base<T> {
  Holder() : one_{1}, two_{f(2)} {
    x();
  }
  enum class Kind : int { kA, kB };
  int table[2] = {1, 2};
  std::vector<int> list = make({1, 2});
  bool operator()(int a) const { return a < 0; }
};
#define MACRO(x) do { x(); } while (0)
const std::array<int, 2> kTable = {{sizeof(int), 2}};
TEST(A, B) {
  auto f = [](int x) { return x; };
  struct Local { int g() { return 1; } };
}
template <class T>
T twice(T x) {
  if (x) {
    y();
  }
}
}
"""
        self.assertEqual(list(sizes.functions(code)), [
            (5, 7, "Holder"), (11, 11, "operator()"), (15, 18, "TEST"), (19, 24, "twice")])

    # Form

    def test_header_form(self):
        self.assertEqual(self.rules({"src/base/a.h": "// What.\nint a;\n"}), {"pragma_once"})
        self.assertEqual(self.rules({"src/base/a.h": "#pragma once\nint a;\n"}), {"contract"})

    def test_folder_files_and_licence(self):
        self.assertEqual(self.rules({"src/base/a.cc": "int a;\n"}, complete=False), {"folder_files", "licence"})

    def test_text_form(self):
        for rule, line in (("blanks", "a \n"), ("blanks", "a\r\n"), ("blanks", "a"), ("blanks", "a\n\n"),
                           ("unfinished", "# TO" "DO later\n"), ("machine_path", "/ho" "me/me/a\n")):
            with self.subTest(line=line):
                self.assertEqual(self.rules({"tools/a.py": line}), {rule})
        self.assertEqual(self.rules({"tools/a.py": "a = 1\n"}), set())

    def test_dead_link(self):
        self.assertEqual(self.rules({"docs/a.md": "[b](b.md#c)\n"}), {"dead_link"})
        self.assertEqual(self.rules({"docs/a.md": "[b](b.md#c)\n", "docs/b.md": "# b\n"}), set())


if __name__ == "__main__":
    unittest.main()
