/* Small templates with the text jinja2 3.1.6 gives for them, set up as Hugging Face transformers does; NULL where it raises.
 * The expected column comes from jinja2 itself, never from this interpreter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "text/jinja.h"

struct rendered {
    const char *source, *expected;
};

static const char variables[] =
    "{ \"s\": \"Hello World\","
    " \"u\": \"Grüße, 日本 ß\","
    " \"n\": 7,"
    " \"f\": 2.5,"
    " \"t\": true,"
    " \"no\": null,"
    " \"l\": [3, 1, 2],"
    " \"d\": {\"b\": 1, \"A\": [1, \"x\"], \"items\": 5},"
    " \"e\": [],"
    " \"ed\": {},"
    " \"es\": \"\","
    " \"m\": [{\"role\": \"user\", \"content\": \"a\", \"k\": {\"x\": 1}}, {\"role\": \"assistant\", \"content\": \"b\", \"k\": {\"x\": 2}}, {\"role\": \"user\", \"content\": \"C\"}],"
    " \"ws\": \" \\t a b \\n\","
    " \"neg\": -7,"
    " \"big\": 9007199254740993,"
    " \"q\": \"it's \\\"x\\\"\\n\\\\\","
    " \"mixed\": [1, \"a\"],"
    " \"html\": \"<a&'\\\">\","
    " \"lines\": \"a\\nb\\r\\nc\\n\\nd\","
    " \"nums\": [1.5, 2, -3],"
    " \"words\": [\"b\", \"A\", \"c\", \"a\"] }";

static const struct rendered printing[] = {
    { "{{ none }}|{{ true }}|{{ false }}|{{ None }}{{ True }}{{ False }}", "None|True|False|NoneTrueFalse" },
    { "{{ 1.0 }}|{{ 0.1 }}|{{ 1e16 }}|{{ 1e15 }}|{{ 1.5e-5 }}|{{ 0.0001 }}|{{ 123456789.123 }}|{{ 1e300 }}|{{ 5"
      "e-324 }}|{{ 100.0 }}",
      "1.0|0.1|1e+16|1000000000000000.0|1.5e-05|0.0001|123456789.123|1e+300|5e-324|100.0" },
    { "{{ l }}|{{ d }}|{{ (1,) }}|{{ () }}|{{ (1, 'a', none) }}|{{ m[0] }}",
      "[3, 1, 2]|{'b': 1, 'A': [1, 'x'], 'items': 5}|(1,)|()|(1, 'a', None)|{'role': 'user', 'content': 'a', 'k"
      "': {'x': 1}}" },
    { "{{ u }}|{{ [u] }}|{{ [q] }}|{{ ['\\x07\\u200b\\U0001F600é'] }}",
      "Grüße, 日本 ß|['Grüße, 日本 ß']|['it\\'s \"x\"\\n\\\\']|['\\x07\\u200b😀é']" },
    { "{{ undefined_name }}|{{ [undefined_name] }}", "|[Undefined]" },
    { "{{ {'a': {'b': (1, 2.0)}} }}|{{ {1: 2, none: 3, true: 4} }}", "{'a': {'b': (1, 2.0)}}|{1: 4, None: 3}" },
    { "{{ 'a' 'b' \"c\" }}", "abc" },
    { "{{ \"a\\tb\\\\c\\'d\\\"e\\/\\d\\101\\x41\\u00e9\" }}", "a\tb\\c'd\"e\\/\\dAAé" },
    { "{{ range(3) }}|{{ range(1, 10, 3) }}|{{ range(10)[2:5] }}|{{ range(10)[::2] }}",
      "range(0, 3)|range(1, 10, 3)|range(2, 5)|range(0, 10, 2)" },
    { "{{ d.items() }}|{{ d.keys() }}|{{ d.values() }}",
      "dict_items([('b', 1), ('A', [1, 'x']), ('items', 5)])|dict_keys(['b', 'A', 'items'])|dict_values([1, [1,"
      " 'x'], 5])" },
    { "{{ namespace(a=1, b='x') }}", "<Namespace {'a': 1, 'b': 'x'}>" },
    { "{{ 0x1F }}|{{ 0b101 }}|{{ 0o17 }}|{{ 1_000 }}|{{ 1_0.5_0 }}", "31|5|15|1000|10.5" },
    { "{{ 9223372036854775807 }}", "9223372036854775807" },
};

static const struct rendered arithmetic[] = {
    { "{{ 7 // 2 }}|{{ -7 // 2 }}|{{ 7 // -2 }}|{{ 7 % 3 }}|{{ -7 % 3 }}|{{ 7 % -3 }}|{{ 7.5 % 2 }}|{{ -7.5 // "
      "2 }}|{{ 7 / 2 }}|{{ 6 / 2 }}",
      "3|-4|-4|1|2|-2|1.5|-4.0|3.5|3.0" },
    { "{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 2.0 ** 3 }}|{{ -2 ** 2 }}|{{ 2 ** 3 ** 2 }}|{{ 10 ** 18 }}",
      "1024|0.5|8.0|4|64|1000000000000000000" },
    { "{{ 1 + 2 * 3 - 4 }}|{{ (1 + 2) * 3 }}|{{ 1 - -1 }}|{{ +5 }}|{{ -f }}|{{ true + 1 }}|{{ -true }}",
      "3|9|2|5|-2.5|2|-1" },
    { "{{ 1 + 1.5 }}|{{ 'a' + 'b' }}|{{ [1] + [2] }}|{{ (1,) + (2,) }}|{{ 'ab' * 3 }}|{{ 3 * 'ab' }}|{{ [0] * 3"
      " }}|{{ 'x' * -1 }}",
      "2.5|ab|[1, 2]|(1, 2)|ababab|ababab|[0, 0, 0]|" },
    { "{{ 1 / 0 }}", NULL },
    { "{{ 1 // 0 }}", NULL },
    { "{{ 1 % 0 }}", NULL },
    { "{{ 'a' + 1 }}", NULL },
    { "{{ 1 + 'a' }}", NULL },
    { "{{ [1] + (2,) }}", NULL },
    { "{{ none + 1 }}", NULL },
    { "{{ undefined_name + 1 }}", NULL },
    { "{{ -undefined_name }}", NULL },
    { "{{ -'a' }}", NULL },
    { "{{ 'a' ~ 1 ~ none ~ 2.0 ~ [1] ~ undefined_name ~ true }}", "a1None2.0[1]True" },
    { "{{ 1 ~ 2 + 3 }}", NULL },
    { "{{ n + f }}|{{ n * f }}|{{ n - f }}|{{ n / 2 }}", "9.5|17.5|4.5|3.5" },
    { "{{ 'a' - 'b' }}", NULL },
    { "{{ '%s is %d and %5.2f|%-5s|%5s|%05d|%x|%%|%r|%i' % ('x', 3, 2.5, 'l', 'r', 42, 255, 'q', 4.7) }}",
      "x is 3 and  2.50|l    |    r|00042|ff|%|'q'|4" },
    { "{{ '%s' % 'x' }}|{{ '%s' % [1, 2] }}|{{ '%s %s' % (1, 2) }}|{{ '%(a)s-%(b)d' % {'a': 1, 'b': 2} }}",
      "x|[1, 2]|1 2|1-2" },
    { "{{ '%s %s' % 1 }}", NULL },
    { "{{ 'x' % 1 }}", NULL },
    { "{{ '%d' % 'x' }}", NULL },
    { "{{ '%+d|% d|%.3s' % (5, 5, 'abcdef') }}", "+5| 5|abc" },
};

static const struct rendered comparison[] = {
    { "{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ 1 == 1.0 }}|{{ 1 == true }}|{{ 'a' < 'b' }}|{{ [1, 2] < [1, 3] }}|{{ "
      "(1,) == [1] }}|{{ 'a' == 1 }}",
      "True|False|True|True|True|True|False|False" },
    { "{{ none == none }}|{{ undefined_name == undefined_name2 }}|{{ undefined_name == none }}|{{ d == d }}|{{ "
      "{'a': 1} == {'a': 1.0} }}",
      "True|True|False|True|True" },
    { "{{ 1 < 'a' }}", NULL },
    { "{{ none < 1 }}", NULL },
    { "{{ undefined_name < 1 }}", NULL },
    { "{{ d < d }}", NULL },
    { "{{ 'ell' in s }}|{{ 3 in l }}|{{ 'b' in d }}|{{ 'z' not in d }}|{{ 1 in (1, 2) }}|{{ 'x' in undefined_na"
      "me }}|{{ '' in '' }}",
      "True|True|True|True|True|False|True" },
    { "{{ 1 in 'abc' }}", NULL },
    { "{{ 1 in none }}", NULL },
    { "{{ 1 in 5 }}", NULL },
    { "{{ [1] in d }}", NULL },
    { "{{ [1] in [[1]] }}|{{ 2 in range(3) }}|{{ 1 in d.values() }}|{{ 'b' in d.keys() }}", "True|True|True|True" },
    { "{{ 0 or 'x' }}|{{ 1 and 2 }}|{{ none or false }}|{{ '' and 1 }}|{{ not 0 }}|{{ not 'a' }}|{{ undefined_n"
      "ame or 'd' }}",
      "x|2|False||True|False|d" },
    { "{{ 1 if true else 2 }}|{{ 1 if false }}|{{ 1 if false else 2 if false else 3 }}|{{ (1 if no else 2) + 1 }}",
      "1||3|3" },
    { "{{ not 1 == 2 }}|{{ not n is defined }}|{{ n is not none and n > 3 }}", "True|False|True" },
    { "{{ 'a' in ['a'] and not 'b' in ['a'] }}", "True" },
    { "{{ (1 if false).x }}", NULL },
    { "{{ nosuch.x }}", NULL },
    { "{{ nosuch['x'] }}", NULL },
    { "{{ nosuch() }}", NULL },
    { "{{ 5() }}", NULL },
    { "{{ s.x.y }}", NULL },
    { "{{ no.x }}|{{ n.x }}|{{ s.nosuch }}|{{ l.nosuch }}", "|||" },
};

static const struct rendered access[] = {
    { "{{ d.b }}|{{ d['b'] }}|{{ d.A[1] }}|{{ d['A'][0] }}|{{ d.nosuch }}|{{ d['nosuch'] }}|{{ l[0] }}|{{ l[-1]"
      " }}|{{ l[9] }}|{{ l[-9] }}",
      "1|1|x|1|||3|2||" },
    { "{{ s[0] }}|{{ s[-1] }}|{{ u[2] }}|{{ u[-1] }}|{{ s[99] }}|{{ u[7] }}|{{ l.0 }}|{{ m.0.role }}|{{ l[true] }}",
      "H|d|ü|ß||日|3|user|1" },
    { "{{ s[1:4] }}|{{ s[:3] }}|{{ s[-3:] }}|{{ s[::-1] }}|{{ u[::-1] }}|{{ s[::2] }}|{{ s[5:1] }}|{{ s[5:1:-1]"
      " }}|{{ s[100:] }}|{{ s[:-100] }}|{{ u[2:6] }}|{{ u[-4:-1] }}",
      "ell|Hel|rld|dlroW olleH|ß 本日 ,eßürG|HloWrd|| oll|||üße,|日本 " },
    { "{{ l[1:] }}|{{ l[::-1] }}|{{ (1,2,3)[1:] }}|{{ l[:] }}|{{ l[-2:] }}|{{ l[10:0:-1] }}|{{ l[:1:-1] }}|{{ l"
      "[0:2:5] }}",
      "[1, 2]|[2, 1, 3]|(2, 3)|[3, 1, 2]|[1, 2]|[2, 1]|[2]|[3]" },
    { "{{ l[none:none] }}|{{ l['a'] }}|{{ l[1.5] }}", "[3, 1, 2]||" },
    { "{{ l['a':] }}", NULL },
    { "{{ l[::0] }}", NULL },
    { "{{ no[1:] }}", NULL },
    { "{{ d[1:] }}", NULL },
    { "{{ d['items'] }}|{{ d.get('items') }}|{{ d.get('zz', 4) }}|{{ d.get('zz') }}|{{ d.get(nosuch) }}",
      "5|5|4|None|None" },
    { "{{ m[0]['keys']() | list }}", "['role', 'content', 'k']" },
    { "{{ d[[1]] }}|{{ d[(1, [2])] }}", "|" },
    { "{{ d.get([1]) }}", NULL },
    { "{{ s.__class__ }}", "" },
    { "{{ s.__class__.__name__ }}", NULL },
    { "{{ l.append(1) }}", NULL },
    { "{{ d.update({}) }}", NULL },
    { "{{ l.pop() }}", NULL },
    { "{{ d.pop }}|", "|" },
    { "{{ l.append is defined }}", "False" },
    { "{{ l['append'] is defined }}", "False" },
    { "{{ 'abc'.upper() }}|{{ 'abc'['upper']() }}", "ABC|ABC" },
    { "{{ (1, 2).count(1) }}|{{ l.index(1) }}|{{ l.count(3) }}|{{ l.copy() }}", "1|1|1|[3, 1, 2]" },
    { "{{ l.index(99) }}", NULL },
    { "{{ 5 .x }}|{{ f.y }}", "|" },
};

static const struct rendered methods[] = {
    { "{{ 'a,b,,c'.split(',') }}|{{ 'a,b,,c'.split(',', 1) }}|{{ ws.split() }}|{{ ' a  b c '.split(none, 1) }}|"
      "{{ ''.split() }}|{{ ''.split(',') }}|{{ 'ab'.split('ab') }}|{{ 'a b'.split(maxsplit=1, sep=' ') }}",
      "['a', 'b', '', 'c']|['a', 'b,,c']|['a', 'b']|['a', 'b c ']|[]|['']|['', '']|['a', 'b']" },
    { "{{ 'a,b,c'.rsplit(',', 1) }}|{{ ' a  b c '.rsplit(none, 1) }}|{{ 'a,b,c'.rsplit(',') }}|{{ 'aXXbXXc'.rsp"
      "lit('XX', 1) }}|{{ ' x '.rsplit() }}",
      "['a,b', 'c']|[' a  b', 'c']|['a', 'b', 'c']|['aXXb', 'c']|['x']" },
    { "{{ 'a'.split('') }}", NULL },
    { "{{ [ws.strip(), ws.lstrip(), ws.rstrip(), 'xxaxx'.strip('x'), 'abcba'.strip('ab'), '日a日'.strip('日'), '"
      "\\u3000a\\u00a0'.strip()] }}",
      "['a b', 'a b \\n', ' \\t a b', 'a', 'c', 'a', 'a']" },
    { "{{ s.startswith('He') }}|{{ s.endswith(('x', 'ld')) }}|{{ s.startswith('') }}|{{ s.startswith('e', 1) }}"
      "|{{ s.endswith('o', 0, 5) }}|{{ s.startswith(()) }}",
      "True|True|True|True|True|False" },
    { "{{ s.startswith(1) }}", NULL },
    { "{{ s.startswith(nosuch) }}", NULL },
    { "{{ s.startswith(['H']) }}", NULL },
    { "{{ s.replace('l', 'L') }}|{{ s.replace('l', 'L', 1) }}|{{ 'ab'.replace('', '-') }}|{{ 'é日'.replace('', '"
      ".', 2) }}|{{ s.replace('zz', 'y') }}|{{ ''.replace('', 'x') }}|{{ 'aaa'.replace('aa', 'b') }}|{{ 'ab'.re"
      "place('', '-', 0) }}",
      "HeLLo WorLd|HeLlo World|-a-b-|.é.日|Hello World|x|ba|ab" },
    { "{{ s.replace('l') }}", NULL },
    { "{{ s.replace(1, 2) }}", NULL },
    { "{{ s.upper() }}|{{ s.lower() }}|{{ s.title() }}|{{ u.upper() }}|{{ u.lower() }}|{{ 'hELLO wORLD'.capital"
      "ize() }}|{{ \"they're bill's\".title() }}|{{ s.swapcase() }}",
      "HELLO WORLD|hello world|Hello World|GRÜSSE, 日本 SS|grüße, 日本 ß|Hello world|They'Re Bill'S|hELLO wORLD" },
    { "{{ 'ΑΣ ΣΑΣ'.lower() }}|{{ 'İ'.lower() }}|{{ 'ﬁ ŉ ΐ'.upper() }}|{{ 'ǆ ﬁx ßa'.title() }}|{{ 'ǆa'.capitaliz"
      "e() }}|{{ 'ᾳ ᾼ'.upper() }}",
      "ας σας|i̇|FI ʼN Ϊ́|ǅ Fix Ssa|ǅa|ΑΙ ΑΙ" },
    { "{{ ','.join(['a', 'b']) }}|{{ ''.join([]) }}|{{ '-'.join('abc') }}|{{ ','.join(d) }}|{{ ', '.join(words|"
      "map('upper')) }}",
      "a,b||a-b-c|b,A,items|B, A, C, A" },
    { "{{ ','.join([1, 2]) }}", NULL },
    { "{{ ','.join(5) }}", NULL },
    { "{{ s.find('o') }}|{{ s.find('z') }}|{{ s.rfind('o') }}|{{ u.find('日') }}|{{ s.find('o', 5) }}|{{ s.index"
      "('W') }}|{{ s.find('') }}|{{ s.rfind('') }}|{{ s.find('', 99) }}|{{ s.find('o', 0, 3) }}|{{ s.rindex('l'"
      ") }}",
      "4|-1|7|7|7|6|0|11|-1|-1|9" },
    { "{{ s.index('z') }}", NULL },
    { "{{ s.count('l') }}|{{ 'aaa'.count('aa') }}|{{ s.count('') }}|{{ s.count('l', 4) }}", "3|1|12|1" },
    { "{{ 'abc'.isdigit() }}|{{ '12'.isdigit() }}|{{ ''.isdigit() }}|{{ 'aB'.isalpha() }}|{{ 'a1'.isalnum() }}|"
      "{{ ' '.isspace() }}|{{ 'AB1'.isupper() }}|{{ 'ab1'.islower() }}|{{ '1'.islower() }}|{{ 'ab'.isascii() }}"
      "|{{ '12'.isnumeric() }}|{{ '12'.isdecimal() }}",
      "False|True|False|True|True|True|True|True|False|True|True|True" },
    { "{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '*') }}|{{ 'ab'.center(5, '.')"
      " }}|{{ 'a'.center(4) }}|{{ 'abc'.center(2) }}",
      "007|-007|a  |**a|..ab.| a  |abc" },
    { "{{ 'a=b=c'.partition('=') }}|{{ 'a=b=c'.rpartition('=') }}|{{ 'a'.partition('=') }}|{{ 'a'.rpartition('="
      "') }}",
      "('a', '=', 'b=c')|('a=b', '=', 'c')|('a', '', '')|('', '', 'a')" },
    { "{{ 'prefix-x'.removeprefix('prefix-') }}|{{ 'x.py'.removesuffix('.py') }}|{{ 'x'.removeprefix('y') }}", "x|x|x" },
    { "{{ lines.splitlines() }}|{{ lines.splitlines(true) }}|{{ ''.splitlines() }}|{{ 'a\\x0bb\\u2028c'.splitli"
      "nes() }}",
      "['a', 'b', 'c', '', 'd']|['a\\n', 'b\\r\\n', 'c\\n', '\\n', 'd']|[]|['a', 'b', 'c']" },
    { "{{ 'abc'.split('b', -1) }}|{{ 'abc'.split('b', 0) }}", "['a', 'c']|['abc']" },
    { "{{ s.upper(1) }}", NULL },
    { "{{ s.split(',', 1, 2) }}", NULL },
    { "{{ s.split(1) }}", NULL },
    { "{{ s.nosuch() }}", NULL },
    { "{{ '{} and {}'.format(1, 'x') }}|{{ '{0}{1}{0}'.format('a', 'b') }}|{{ '{a}{b!r}'.format(a=1, b='x') }}|"
      "{{ '{{}}'.format() }}|{{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:+d}|{:*^7}|{:%}'.format('a', 'b', "
      "'c', 42, 3.14159, 1234567, 255, 5, 'mid', 0.25) }}",
      "1 and x|aba|1'x'|{}|    a|b    |  c  |00042|3.14|1,234,567|ff|+5|**mid**|25.000000%" },
    { "{{ '{0.b}{0[A]}'.format(d) }}|{{ '{[0]}'.format(l) }}|{{ '{}'.format(none) }}|{{ '{}'.format([1, 'a']) }}", NULL },
    { "{{ '{}'.format() }}", NULL },
    { "{{ '{x}'.format() }}", NULL },
    { "{{ '{'.format() }}", NULL },
    { "{{ '}'.format() }}", NULL },
    { "{{ '{:d}'.format('x') }}", NULL },
    { "{{ '{:5}|{:5}|{:<5}|{:.3}'.format('ab', 12, 12, 'abcdef') }}", "ab   |   12|12   |abc" },
    { "{{ '{:e}|{:g}|{:.0f}|{:08.3f}|{: d}|{:#x}|{:b}|{:o}|{:X}'.format(12345.678, 0.0001, 2.5, -3.14159, 42, 2"
      "55, 5, 8, 255) }}",
      "1.234568e+04|0.0001|2|-003.142| 42|0xff|101|10|FF" },
    { "{{ '{:<10}|{:>10}|'.format('日本', 'ü') }}", "日本        |         ü|" },
    { "{{ '{0}{}'.format(1, 2) }}", NULL },
};

static const struct rendered filters[] = {
    { "{{ s|upper }}|{{ s|lower }}|{{ s|title }}|{{ 'foo-bar (baz) x'|title }}|{{ 'aB c'|capitalize }}|{{ n|upp"
      "er }}|{{ none|upper }}|{{ nosuch|upper }}",
      "HELLO WORLD|hello world|Hello World|Foo-Bar (Baz) X|Ab c|7|NONE|" },
    { "[{{ ws|trim }}]|{{ 'xax'|trim('x') }}|{{ none|trim }}|{{ nosuch|trim }}|{{ 5|trim }}", "[a b]|a|None||5" },
    { "{{ s|length }}|{{ u|length }}|{{ l|count }}|{{ d|length }}|{{ nosuch|length }}|{{ range(5)|length }}|{{ "
      "d.items()|length }}",
      "11|11|3|3|0|5|3" },
    { "{{ none|length }}", NULL },
    { "{{ 5|length }}", NULL },
    { "{{ nosuch|default('x') }}|{{ nosuch|default }}|{{ none|default('x') }}|{{ none|default('x', true) }}|{{ "
      "''|d('x', boolean=true) }}|{{ 0|d(5) }}|{{ d.zz|default(default_value=3) }}",
      "x||None|x|x|0|3" },
    { "{{ l|first }}|{{ l|last }}|{{ s|first }}|{{ s|last }}|{{ e|first }}|{{ d|first }}|{{ d|last }}|{{ u|last"
      " }}|{{ nosuch|first }}|{{ nosuch|last }}|{{ range(4)|last }}",
      "3|2|H|d||b|items|ß|||3" },
    { "{{ none|first }}", NULL },
    { "{{ l|map('string')|last }}", NULL },
    { "{{ l|join }}|{{ l|join(', ') }}|{{ s|join('-') }}|{{ m|join(',', attribute='role') }}|{{ [1, none, 'a', "
      "[2]]|join('|') }}|{{ nosuch|join(',') }}|{{ l|join(d=';') }}",
      "312|3, 1, 2|H-e-l-l-o- -W-o-r-l-d|user,assistant,user|1|None|a|[2]||3;1;2" },
    { "{{ none|join(',') }}", NULL },
    { "{{ s|replace('l', 'L') }}|{{ s|replace('l', 'L', 2) }}|{{ 123|replace(2, 'x') }}|{{ s|replace('o', '') }}",
      "HeLLo WorLd|HeLLo World|1x3|Hell Wrld" },
    { "{{ s|list }}|{{ d|list }}|{{ (1, 2)|list }}|{{ nosuch|list }}|{{ d.items()|list }}|{{ range(3)|list }}",
      "['H', 'e', 'l', 'l', 'o', ' ', 'W', 'o', 'r', 'l', 'd']|['b', 'A', 'items']|[1, 2]|[]|[('b', 1), ('A', ["
      "1, 'x']), ('items', 5)]|[0, 1, 2]" },
    { "{{ none|list }}", NULL },
    { "{{ 5|string + 'x' }}|{{ none|string }}|{{ l|string }}", "5x|None|[3, 1, 2]" },
    { "{{ '42'|int }}|{{ ' 42 '|int }}|{{ '4.7'|int }}|{{ 'x'|int }}|{{ 'x'|int(9) }}|{{ 3.9|int }}|{{ -3.9|int"
      " }}|{{ true|int }}|{{ none|int }}|{{ 'ff'|int(base=16) }}|{{ '0x1f'|int(0, 16) }}|{{ '1_000'|int }}|{{ '"
      "-5'|int }}|{{ l|int }}|{{ '0b11'|int(base=2) }}|{{ '1e3'|int }}|{{ 'inf'|int }}|{{ '+7'|int }}|{{ '- 7'|"
      "int }}",
      "42|42|4|0|9|3|-3|1|0|255|31|1000|-5|0|3|1000|0|7|0" },
    { "{{ nosuch|int }}", NULL },
    { "{{ '4.5'|float }}|{{ 'x'|float }}|{{ 'x'|float(1.5) }}|{{ 3|float }}|{{ none|float }}|{{ '1e3'|float }}|"
      "{{ ' 2.5 '|float }}|{{ 'nan'|float }}|{{ '0x10'|float }}|{{ 'inf'|float }}|{{ '-inf'|float }}",
      "4.5|0.0|1.5|3.0|0.0|1000.0|2.5|nan|0.0|inf|-inf" },
    { "{{ nosuch|float }}", NULL },
    { "{{ d|items|list }}|{{ nosuch|items|list }}|{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}",
      "[('b', 1), ('A', [1, 'x']), ('items', 5)]|[]|b=1;A=[1, 'x'];items=5;" },
    { "{{ none|items|list }}", NULL },
    { "{{ d|dictsort }}|{{ d|dictsort(true) }}|{{ {'a': 2, 'b': 1}|dictsort(by='value') }}|{{ {'a': 2, 'b': 1}|"
      "dictsort(reverse=true) }}|{{ {'B': 2, 'a': 'X', 'C': 1}|dictsort }}",
      "[('A', [1, 'x']), ('b', 1), ('items', 5)]|[('A', [1, 'x']), ('b', 1), ('items', 5)]|[('b', 1), ('a', 2)]"
      "|[('b', 1), ('a', 2)]|[('a', 'X'), ('B', 2), ('C', 1)]" },
    { "{{ d|dictsort(false, 'value') }}", NULL },
    { "{{ l|dictsort }}", NULL },
    { "{{ {'a': 1, 2: 3}|dictsort }}", NULL },
    { "{{ m|selectattr('role', 'equalto', 'user')|map(attribute='content')|list }}|{{ m|rejectattr('role', 'eq'"
      ", 'user')|list|length }}|{{ m|selectattr('k')|list|length }}|{{ m|selectattr('k', 'defined')|list|length"
      " }}|{{ m|selectattr('k.x', 'gt', 1)|list|length }}",
      NULL },
    { "{{ m|selectattr('k', 'undefined')|map(attribute='role')|first }}|{{ m|map(attribute='k.x', default=0)|li"
      "st }}|{{ m|map(attribute='zz')|list }}",
      "user|[1, 2, 0]|[Undefined, Undefined, Undefined]" },
    { "{{ l|select('odd')|list }}|{{ l|reject('odd')|list }}|{{ l|select('gt', 1)|list }}|{{ [0, 1, '', 'a']|se"
      "lect|list }}|{{ [0, 1, none]|reject|list }}|{{ none|select|list }}|{{ l|select('in', [1, 2])|list }}|{{ "
      "l|select('>', 1)|list }}",
      "[3, 1]|[2]|[3, 2]|[1, 'a']|[0, None]|[]|[1, 2]|[3, 2]" },
    { "{{ l|select('nosuchtest')|list }}", NULL },
    { "{{ words|map('upper')|join }}|{{ words|map('replace', 'a', 'x')|list }}|{{ [['a', 1]]|map('first')|list "
      "}}|{{ none|map('upper')|list }}|{{ m|map(attribute='role')|unique|list }}|{{ [1.5, 2.5]|map('int')|list "
      "}}|{{ [' a ']|map('trim')|list }}",
      "BACA|['b', 'A', 'c', 'x']|['a']|[]|['user', 'assistant']|[1, 2]|['a']" },
    { "{{ words|map('nosuchfilter')|list }}", NULL },
    { "{{ words|map|list }}", NULL },
    { "{{ l|sort }}|{{ l|sort(reverse=true) }}|{{ words|sort }}|{{ words|sort(case_sensitive=true) }}|{{ m|sort"
      "(attribute='content')|map(attribute='content')|list }}|{{ d|sort }}|{{ m|sort(attribute='role,content')|"
      "map(attribute='content')|join }}|{{ 'hello'|sort|join }}",
      "[1, 2, 3]|[3, 2, 1]|['A', 'a', 'b', 'c']|['A', 'a', 'b', 'c']|['a', 'b', 'C']|['A', 'b', 'items']|baC|ehllo" },
    { "{{ mixed|sort }}", NULL },
    { "{{ ['a', 'A', 'b', 'a']|unique|list }}|{{ ['a', 'A', 'b', 'a']|unique(true)|list }}|{{ [1, 1.0, true, 2]"
      "|unique|list }}",
      "['a', 'b']|['a', 'A', 'b']|[1, 2]" },
    { "{{ [[1]]|unique|list }}", NULL },
    { "{{ l|reverse|list }}|{{ s|reverse }}|{{ d|reverse|list }}|{{ l|map('string')|reverse|list }}|{{ u|reverse }}",
      "[2, 1, 3]|dlroW olleH|['items', 'A', 'b']|['2', '1', '3']|ß 本日 ,eßürG" },
    { "{{ none|reverse }}", NULL },
    { "{{ 'a\\nb\\n\\nc'|indent }}|{{ 'a\\nb'|indent(2, true) }}|{{ 'a\\n\\nb'|indent(2, blank=true) }}|{{ 'a"
      "\\nb'|indent('> ') }}|{{ 'a\\nb\\n'|indent(1, first=True) }}|{{ ''|indent(3, true) }}",
      "a\n    b\n\n    c|  a\n  b|a\n  \n  b|a\n> b| a\n b\n|   " },
    { "{{ none|indent }}", NULL },
    { "{{ html|escape }}|{{ html|e }}|{{ html|safe }}|{{ html|e|e }}|{{ html|forceescape }}|{{ (html|safe) + '<"
      "' }}|{{ '<' + (html|safe) }}|{{ (html|safe) ~ '<' }}|{{ [html|safe] }}|{{ html|safe|upper + '&' }}|{{ (h"
      "tml|safe|string) + '<' }}|{{ html|safe|replace('a', '<') }}",
      "&lt;a&amp;&#39;&#34;&gt;|&lt;a&amp;&#39;&#34;&gt;|<a&'\">|&lt;a&amp;&#39;&#34;&gt;|&lt;a&amp;&#39;&#34;&"
      "gt;|<a&'\">&lt;|&lt;<a&'\">|<a&'\"><|[Markup('<a&\\'\">')]|<A&'\">&amp;|<a&'\">&lt;|<<&'\">" },
    { "{{ -3|abs }}|{{ -2.5|abs }}|{{ true|abs }}|{{ neg|abs }}", "3|2.5|1|7" },
    { "{{ 'a'|abs }}", NULL },
    { "{{ 2.5|round }}|{{ 3.5|round }}|{{ 2.567|round(2) }}|{{ 2.1|round(method='ceil') }}|{{ 2.9|round(0, 'flo"
      "or') }}|{{ 5|round }}|{{ 0.125|round(2) }}|{{ 2.675|round(2) }}|{{ 42|round(1, 'ceil') }}",
      "2.0|4.0|2.57|3.0|2.0|5|0.12|2.67|42.0" },
    { "{{ 2.5|round(1, 'x') }}", NULL },
    { "{{ l|sum }}|{{ nums|sum }}|{{ [[1], [2]]|sum(start=[]) }}|{{ m[:2]|sum(attribute='k.x') }}|{{ e|sum }}",
      "6|0.5|[1, 2]|3|0" },
    { "{{ l|min }}|{{ l|max }}|{{ words|min }}|{{ words|max(true) }}|{{ e|min }}|{{ m|max(attribute='content') "
      "}}|{{ words|max }}",
      "1|3|A|c||{'role': 'user', 'content': 'C'}|c" },
    { "{{ mixed|max }}", NULL },
    { "{{ [1,2,3,4,5]|batch(2)|list }}|{{ [1,2,3]|batch(2, 0)|list }}", "[[1, 2], [3, 4], [5]]|[[1, 2], [3, 0]]" },
    { "{{ d|attr('get') is callable }}|{{ d|attr('b') }}|{{ s|attr('upper')() }}", "True||HELLO WORLD" },
    { "{{ '%s-%s'|format(1, 'a') }}|{{ '%(x)s'|format(x=2) }}", "1-a|2" },
    { "{{ 'x'|nosuch }}", NULL },
    { "{{ 'x'|upper(1) }}", NULL },
    { "{{ 'x'|replace('x') }}", NULL },
    { "{{ 'x'|default(foo=1) }}", NULL },
    { "{% if false %}{{ 'x'|nosuch }}{% endif %}ok", "ok" },
    { "{{ 'ok' if true else 'x'|nosuch }}", "ok" },
    { "{{ ('x'|nosuch if false else 'y') }}", "y" },
};

static const struct rendered json[] = {
    { "{{ d|tojson }}|{{ l|tojson }}|{{ q|tojson }}|{{ u|tojson }}|{{ u|tojson(ensure_ascii=true) }}|{{ none|to"
      "json }}|{{ true|tojson }}|{{ f|tojson }}|{{ html|tojson }}|{{ (1, 2)|tojson }}|{{ '\\x00\\x1f\\x7f😀'|toj"
      "son }}|{{ '\\x7f😀'|tojson(true) }}",
      "{\"b\": 1, \"A\": [1, \"x\"], \"items\": 5}|[3, 1, 2]|\"it's \\\"x\\\"\\n\\\\\"|\"Grüße, 日本 ß\"|\"Gr\\u0"
      "0fc\\u00dfe, \\u65e5\\u672c \\u00df\"|null|true|2.5|\"<a&'\\\">\"|[1, 2]|\"\\u0000\\u001f\177😀\"|\"\\u00"
      "7f\\ud83d\\ude00\"" },
    { "{{ d|tojson(indent=2) }}|{{ e|tojson(indent=2) }}|{{ {'a': {}}|tojson(indent=1) }}|{{ l|tojson(indent=0)"
      " }}|{{ l|tojson(indent='\\t') }}",
      "{\n  \"b\": 1,\n  \"A\": [\n    1,\n    \"x\"\n  ],\n  \"items\": 5\n}|[]|{\n \"a\": {}\n}|[\n3,\n1,\n2"
      "\n]|[\n\t3,\n\t1,\n\t2\n]" },
    { "{{ d|tojson(separators=(',', ':')) }}|{{ d|tojson(sort_keys=true) }}|{{ d|tojson(indent=2, sort_keys=tru"
      "e, separators=(',', ': ')) }}|{{ {1: 'a', none: 'b', true: 'c', 1.5: 'd'}|tojson }}",
      "{\"b\":1,\"A\":[1,\"x\"],\"items\":5}|{\"A\": [1, \"x\"], \"b\": 1, \"items\": 5}|{\n  \"A\": [\n    1,"
      "\n    \"x\"\n  ],\n  \"b\": 1,\n  \"items\": 5\n}|{\"1\": \"c\", \"null\": \"b\", \"1.5\": \"d\"}" },
    { "{{ 1e20|tojson }}|{{ 1.0|tojson }}|{{ 'nan'|float|tojson }}|{{ 'inf'|float|tojson }}", "1e+20|1.0|NaN|Infinity" },
    { "{{ nosuch|tojson }}", NULL },
    { "{{ [nosuch]|tojson }}", NULL },
    { "{{ range(3)|tojson }}", NULL },
    { "{{ d.items()|tojson }}", NULL },
    { "{{ {(1, 2): 3}|tojson }}", NULL },
    { "{{ {'b': 1, 2: 3}|tojson(sort_keys=true) }}", NULL },
    { "{{ namespace()|tojson }}", NULL },
};

static const struct rendered is_tests[] = {
    { "{{ n is defined }}{{ zz is defined }}{{ zz is undefined }}{{ no is none }}{{ d.zz is defined }}{{ d.b is"
      " defined }}{{ no is defined }}",
      "TrueFalseTrueTrueFalseTrueTrue" },
    { "{{ s is string }}{{ n is string }}{{ d is mapping }}{{ l is mapping }}{{ l is sequence }}{{ s is sequenc"
      "e }}{{ d is sequence }}{{ n is sequence }}{{ zz is sequence }}{{ d.items() is sequence }}{{ range(2) is "
      "sequence }}{{ (l|map('string')) is sequence }}",
      "TrueFalseTrueFalseTrueTrueTrueFalseTrueFalseTrueFalse" },
    { "{{ l is iterable }}{{ s is iterable }}{{ n is iterable }}{{ zz is iterable }}{{ no is iterable }}{{ d.it"
      "ems() is iterable }}{{ (l|map('string')) is iterable }}",
      "TrueTrueFalseTrueFalseTrueTrue" },
    { "{{ n is number }}{{ f is number }}{{ t is number }}{{ s is number }}{{ n is integer }}{{ t is integer }}"
      "{{ f is integer }}{{ f is float }}{{ n is float }}{{ t is boolean }}{{ n is boolean }}{{ t is true }}{{ "
      "t is false }}{{ false is false }}{{ 1 is true }}",
      "TrueTrueTrueFalseTrueFalseFalseTrueFalseTrueFalseTrueFalseTrueFalse" },
    { "{{ 3 is odd }}{{ 3 is even }}{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ 3 is eq 3 }}{{ 3 is ne "
      "3 }}{{ 3 is equalto 3 }}{{ 3 is lt 4 }}{{ 3 is gt 4 }}{{ 3 is le 3 }}{{ 3 is ge 4 }}{{ 3 is greaterthan "
      "2 }}{{ 3 is lessthan 2 }}{{ 1 is in [1] }}{{ 'a' is in 'abc' }}{{ none is sameas none }}{{ 1 is sameas t"
      "rue }}",
      "TrueFalseTrueFalseTrueFalseTrueTrueFalseTrueFalseTrueFalseTrueTrueTrueFalse" },
    { "{{ 'a' is lower }}{{ 'A' is upper }}{{ 'aB' is lower }}{{ s is not string }}{{ not s is string }}{{ nosu"
      "ch is callable }}{{ s.upper is callable }}{{ range is callable }}{{ 'upper' is filter }}{{ 'zz' is filte"
      "r }}{{ 'odd' is test }}{{ html is escaped }}{{ (html|safe) is escaped }}",
      "TrueTrueFalseFalseFalseTrueTrueTrueTrueFalseTrueFalseTrue" },
    { "{{ 'a' is odd }}", NULL },
    { "{{ 4 is divisibleby 0 }}", NULL },
    { "{{ 4 is nosuch }}", NULL },
    { "{{ 4 is divisibleby }}", NULL },
    { "{{ s is string and n is number or false }}", "True" },
    { "{{ s is string is true }}", NULL },
    { "{{ 'x' if s is string else 'y' }}|{{ s is defined and s is not none }}|{{ 1 if m is not mapping and m is"
      " not string else 0 }}",
      "x|True|1" },
};

static const struct rendered statements[] = {
    { "{% for x in l %}{{ x }},{% endfor %}", "3,1,2," },
    { "{% for x in [] %}a{% else %}empty{% endfor %}", "empty" },
    { "{% for x in nosuch %}a{% else %}empty{% endfor %}", "empty" },
    { "{% for k, v in d.items() %}{{ k }}:{{ v }};{% endfor %}", "b:1;A:[1, 'x'];items:5;" },
    { "{% for k in d %}{{ k }}{% endfor %}", "bAitems" },
    { "{% for c in u %}[{{ c }}]{% endfor %}", "[G][r][ü][ß][e][,][ ][日][本][ ][ß]" },
    { "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123" },
    { "{% for a, b in [(1, 2, 3)] %}{% endfor %}", NULL },
    { "{% for a, b in [1] %}{% endfor %}", NULL },
    { "{% for x in none %}{% endfor %}", NULL },
    { "{% for x in 5 %}{% endfor %}", NULL },
    { "{% for x in l if x > 1 %}{{ loop.index }}:{{ x }}{{ loop.last }};{% endfor %}", "1:3False;2:2True;" },
    { "{% for x in l if x > 9 %}a{% else %}none{% endfor %}", "none" },
    { "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop"
      ".revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.previtem }}/{{ loop.nextitem }};{% endfor %}",
      "10TrueFalse3321/1;21FalseFalse32113/2;32FalseTrue31011/;" },
    { "{% for x in l if x != 1 %}{{ loop.length }}{{ loop.revindex }}{{ loop.previtem }}/{{ loop.nextitem }};{%"
      " endfor %}",
      "22/2;213/;" },
    { "{% for x in l|map('string') %}{{ loop.length }}{{ loop.last }}{{ x }};{% endfor %}", "3False3;3False1;3True2;" },
    { "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "123112321233" },
    { "{{ loop }}|", "|" },
    { "{% for x in l %}{% set y = loop %}{{ y.index }}{% endfor %}", "123" },
    { "{% for x in l %}{{ loop.nosuch }}|{{ loop['index'] }}{% endfor %}", "|1|2|3" },
    { "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ "
      "x }}{% endfor %}",
      "0134" },
    { "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %}|{% endfor %}", "3|3|3|" },
    { "{% break %}", NULL },
    { "{% for x in l %}{% break %}{% else %}else{% endfor %}.", "else." },
    { "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}", "4,2,3,1" },
    { "{% set ns = namespace(c=0) %}{% for i in l %}{% set ns.c = ns.c + i %}{% endfor %}{{ ns.c }}", "6" },
    { "{% set ns = namespace() %}{{ ns.x }}|{% set ns.x = 1 %}{{ ns.x }}{{ ns['x'] }}", "|11" },
    { "{% set d.x = 1 %}", NULL },
    { "{% set zz.x = 1 %}", NULL },
    { "{{ namespace({'a': 1}, b=2).a }}", "1" },
    { "{% set ns = namespace(_p=1) %}{{ ns._p }}", "" },
    { "{% set ns = namespace(_p=1) %}{{ ns._p.x }}", NULL },
    { "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}", "1221" },
    { "{% set (a, b) = (1, 2) %}{{ a + b }}", "3" },
    { "{% set a = 1, %}{{ a }}", "(1,)" },
    { "{% set a, b = (1,) %}", NULL },
    { "{% set t2 = 1, 2 %}{{ t2 }}", "(1, 2)" },
    { "{% set x %}a{{ n }}{% set inner = 5 %}{% endset %}[{{ x }}]{{ inner }}", "[a7]" },
    { "{% set x|upper|replace('A', 'b') %}aa{% endset %}{{ x }}", "bb" },
    { "{% set x = 'g' %}{% set x %}{{ x }}!{% endset %}{{ x }}", "g!" },
    { "{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}", "a" },
    { "{% if e %}a{% elif d %}b{% endif %}", "b" },
    { "{% if nosuch %}a{% else %}b{% endif %}", "b" },
    { "{% if l|select('gt', 9) %}gen{% endif %}", "gen" },
    { "{% if not e and es == '' %}x{% endif %}", "x" },
    { "{% if 1 %}{% set q2 = 3 %}{% endif %}{{ q2 }}", "3" },
    { "{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }}|{{ f(1, 3) }}|{{ f(b=1, a=2) }}|{{ f() }}",
      "1-2|1-3|2-1|-2" },
    { "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", NULL },
    { "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(z=2) }}", NULL },
    { "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, z=3) }}", "(1, 2){'z': 3}" },
    { "{% macro f(a, b=a+1) %}{{ b }}{% endmacro %}{{ f(1) }}", "2" },
    { "{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(none) }}", "FalseTrue" },
    { "{% macro f(a) %}{{ a.x }}{% endmacro %}{{ f() }}", NULL },
    { "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "54321" },
    { "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", NULL },
    { "{% set g = 1 %}{% macro f() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ f() }}", "2" },
    { "{% macro f() %}{{ x }}{% endmacro %}{% for x in l %}{{ f() }}{% endfor %}|", "|" },
    { "{% macro f() %}{% set g = 9 %}{{ g }}{% endmacro %}{{ f() }}{{ g }}", "9" },
    { "{% for x in l %}{% macro f() %}{{ x }}{% endmacro %}{{ f() }}{% endfor %}", "312" },
    { "{% macro f() %}x{% endmacro %}{{ f() + 'y' }}{{ f() ~ 1 }}{{ f()|upper }}", "xyx1X" },
    { "{% macro f() -%}  x  {%- endmacro %}[{{ f() }}]", "[x]" },
    { "{{ f() }}{% macro f() %}x{% endmacro %}", NULL },
    { "{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}body{{ n }}{% endcall %}", "[body7]" },
    { "{% macro f() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(a, b) f() %}{{ a }}{{ b }}{% endcall %}", "[12]" },
    { "{% macro f() %}x{% endmacro %}{% call f() %}b{% endcall %}", NULL },
    { "{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}", NULL },
    { "{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}", "False" },
    { "{% macro f(x) %}{{ x }}{{ caller() }}{% endmacro %}{% for i in l %}{% call f(i) %}{{ loop.index }}{% end"
      "call %}{% endfor %}",
      "311223" },
    { "{% macro f(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ f(*[1, 2]) }}{{ f(**{'a': 3, 'b': 4}) }}{{ f(1, *[2]) }}",
      "123412" },
    { "{{ dict(a=1, **{'b': 2}) }}{{ dict([('a', 1)]) }}{{ dict(d) }}",
      "{'a': 1, 'b': 2}{'a': 1}{'b': 1, 'A': [1, 'x'], 'items': 5}" },
    { "{{ range(*[1, 3])|list }}", "[1, 2]" },
    { "{% filter upper %}a{{ s }}{% endfilter %}", "AHELLO WORLD" },
    { "{% filter replace('a', 'b')|upper %}aXa{% endfilter %}", "BXB" },
    { "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}", "17" },
    { "{% with %}{% set a = 2 %}{{ a }}{% endwith %}{{ a }}", "2" },
    { "{% with n = 1, b = n %}{{ b }}{% endwith %}", "7" },
    { "{% generation %}x{{ n }}{% set a = 1 %}{% endgeneration %}{{ a }}", "x7" },
    { "{% for x in l %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}", "123" },
    { "{% print n %}", "7" },
    { "{% raw %}{{ x }}{% y %}{% endraw %}z", "{{ x }}{% y %}z" },
    { "{%- raw -%}  {{ x }}  {%- endraw -%}  z", "{{ x }}z" },
    { "a {# c #} b", "a  b" },
    { "a\n  {# c #}\nb", "a\nb" },
    { "a {#- c -#} b", "ab" },
    { "a\n{#+ x +#}\nb", "a\n\nb" },
    { "{{ raise_exception('boom') }}", NULL },
    { "{{ raise_exception() }}", NULL },
    { "{% if false %}{{ raise_exception('x') }}{% endif %}ok", "ok" },
    { "{{ range(200000) }}", NULL },
    { "{{ range(0) }}|{{ range(5, 0, -2)|list }}", "range(0, 0)|[5, 3, 1]" },
    { "{{ range(1, 2, 0) }}", NULL },
    { "{{ range('a') }}", NULL },
    { "{{ range() }}", NULL },
    { "{% set n = 5 %}{{ n }}", "5" },
    { "{% set messages2 = m[1:] %}{{ messages2|length }}", "2" },
    { "{% for x in m if x.role == 'user' %}{{ x.content }}{% endfor %}", "aC" },
    { "{% set ns = namespace(f=false) %}{% for x in l if not ns.f %}{{ x }}{% set ns.f = true %}{% endfor %}", "3" },
    { "{% set ns = namespace(f=false) %}{% for x in l if not ns.f %}{{ loop.last }}{% set ns.f = true %}{% endf"
      "or %}",
      "FalseTrue" },
    { "{% set it = l|map('string') %}{{ it|list }}{{ it|list }}", "['3', '1', '2'][]" },
    { "{% set it = d.items() %}{{ it|list|length }}{{ it|list|length }}", "33" },
    { "{% set r = l|reverse %}{{ r|first }}{{ r|first }}{{ r|list }}", "21[3]" },
    { "{% for x in m|reverse %}{{ x.content }}{% endfor %}", "Cba" },
    { "{% for i in range(m|length - 1, -1, -1) %}{{ m[i].content }}{% endfor %}", "Cba" },
    { "{% for x in l %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}", "3, 1, 2" },
    { "{% for x in l -%}  {{ x }}  {%- endfor %}", "312" },
    { "{% set x = {'a': 1} %}{% set x = dict(x, b=2) %}{{ x }}", "{'a': 1, 'b': 2}" },
    { "{% set x = [] %}{% for i in l %}{% set x = x + [i] %}{% endfor %}{{ x }}", "[]" },
    { "{% set ns = namespace(x=[]) %}{% for i in l %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}", "[3, 1, 2]" },
    { "{% if ns is defined %}{% endif %}{{ ns }}|", "|" },
};

static const struct rendered white_space[] = {
    { "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc" },
    { "a\n  {%- if true %}\n  b\n  {%- endif %}\nc\n", "a  bc" },
    { "a\n  {% if true -%}\n  b\n  {% endif -%}\nc\n", "a\nb\nc" },
    { "a\n  {%+ if true %}\n  b\n  {%+ endif %}\nc\n", "a\n    b\n  c" },
    { "a {% if true %} b {% endif %} c", "a  b  c" },
    { "{% if true +%}\nx{% endif +%}\n y", "\nx\n y" },
    { "  {{ n }}  \n  {{ n -}}  \n x", "  7  \n  7x" },
    { "  {{- n }}", "7" },
    { "x\n\n{{- n -}}\n\ny", "x7y" },
    { "{% if true %}\n\n\nx{% endif %}", "\n\nx" },
    { "  {% set a = 1 %}  {% set b = 2 %}\nx", "  x" },
    { "\t{% set a = 1 %}\nx", "x" },
    { "a\n\n", "a\n" },
    { "a\r\nb\r\n", "a\nb" },
    { "a\n", "a" },
    { "\n", "" },
    { "\n\n", "\n" },
    { "  {# c #}  \nx", "  \nx" },
    { "{# c #}\nx", "x" },
    { "{%- set a = 1 -%}\n\n  x", "x" },
    { "x  \n  {%- for i in l -%}\n {{ i }} \n{%- endfor -%}\n y", "x312y" },
    { "{% set x = 'a\nb' %}\n{{ x }}", "a\nb" },
    { "{{ '{%' }}{{ '}}' }}{{ \"{{\" }}", "{%}}{{" },
    { "{{ {'a': {'b': 1}}}}", "{'a': {'b': 1}}" },
    { "{{ {'a': {'b': 1}}.a.b}}", "1" },
    { "{{n}}{%if n%}y{%endif%}", "7y" },
    { "{{-n-}}", "7" },
    { "{{ 1 -}} x", "1x" },
    { "a{{ 1 -1 }}", "a0" },
    { "{% if n -%} y {%- endif %}", "y" },
    { "}} %} #} { % {", "}} %} #} { % {" },
    { "{", "{" },
    { "{{ '\\n' }}", "\n" },
    { "é{{ n }}\302\240\302\240{%- if true %}x{% endif %}", "é7x" },
    { "a\342\200\250{%- if true %}x{% endif %}", "ax" },
    { "  \302\240{% if true %}x{% endif %}", "x" },
};

static const struct rendered syntax_errors[] = {
    { "{{", NULL },
    { "{% if %}", NULL },
    { "{% if true %}", NULL },
    { "{% endif %}", NULL },
    { "{{ 1 + }}", NULL },
    { "{{ ) }}", NULL },
    { "{{ (1 }}", NULL },
    { "{% for x %}{% endfor %}", NULL },
    { "{% for x in %}{% endfor %}", NULL },
    { "{% nosuch %}", NULL },
    { "{{ 'abc }}", NULL },
    { "{# never", NULL },
    { "{% set %}", NULL },
    { "{% set 1 = 2 %}", NULL },
    { "{% set x.y.z = 2 %}", NULL },
    { "{{ 1 2 }}", NULL },
    { "{{ a..b }}", NULL },
    { "{{ | upper }}", NULL },
    { "{% macro %}{% endmacro %}", NULL },
    { "{% macro f(a=1, b) %}{% endmacro %}", NULL },
    { "{{ f(a=1, 2) }}", NULL },
    { "{{ x is }}", NULL },
    { "{{ not }}", NULL },
    { "{{ {1} }}", NULL },
    { "{{ [1, }}", NULL },
    { "{{ 1 if }}", NULL },
    { "{{ @ }}", NULL },
    { "{{ a ! b }}", NULL },
    { "{% if true %}{% else %}{% else %}{% endif %}", NULL },
    { "{% for x in l %}{% endif %}", NULL },
    { "{{ '\\x4' }}", NULL },
    { "{% raw %}x", NULL },
    { "{{ }}", NULL },
    { "{{ 1,2 }}", "(1, 2)" },
    { "{{ 1, }}", "(1,)" },
    { "{{ () }}", "()" },
    { "{% set x = %}", NULL },
    { "{{ x.1a }}", NULL },
    { "{{ 08 }}", NULL },
    { "{% if true: %}x{% endif %}", "x" },
    { "{% for x in l: %}{{ x }}{% endfor %}", "312" },
    { "{{ a b }}", NULL },
    { "{% call n %}{% endcall %}", NULL },
    { "{{ d['b' }}", NULL },
    { "{% set f() = 1 %}", NULL },
};

/* What Jinja has and this interpreter refuses, by name. */
static const struct refusal {
    const char *source, *message;
} refusals[] = {
    { "a\n{% include 'x' %}", "t:2: tag {% include %} is not supported" },
    { "{% extends 'x' %}", "t:1: tag {% extends %} is not supported" },
    { "{% import 'x' as y %}", "t:1: tag {% import %} is not supported" },
    { "{% from 'x' import y %}", "t:1: tag {% from %} is not supported" },
    { "{% block b %}x{% endblock %}", "t:1: tag {% block %} is not supported" },
    { "{% autoescape true %}x{% endautoescape %}", "t:1: tag {% autoescape %} is not supported" },
    { "{% do l %}", "t:1: tag {% do %} is not supported" },
    { "{% for x in l recursive %}{% endfor %}", "t:1: for .. recursive is not supported" },
    { "\n\n{{ 'x'|wordwrap(3) }}", "t:3: filter wordwrap is not supported" },
    { "{% if false %}{{ l|groupby('a') }}{% endif %}", "t:1: filter groupby is not supported" },
    { "{{ lipsum() }}", "t:1: function lipsum() is not supported" },
    { "{{ l[0:2, 1] }}", "t:1: expected ']', got ','" },
    { "{{ l[0, 1] }}", "t:1: a subscript of several parts is not supported" },
    { "{{ '\\N{DASH}' }}", "t:1: escape \\N{..} is not supported" },
    { "{% print 1, 2 %}", "t:1: {% print %} of several values is not supported" },
    { "{{ 9223372036854775808 }}", "t:1: number does not fit 64 bits" },
    { "{{ s.encode() }}", "t:1: method .encode() of a str is not supported" },
    { "{{ l|map('string') }}", "t:1: printing a generator object is not supported" },
    { "{{ '{:{}}'.format(1, 2) }}", "t:1: format: nested replacement fields are not supported" },
    { "{% for x in l %}{{ loop.cycle(1, 2) }}{% endfor %}", "t:1: loop.cycle is not supported" },
    { "{{ 9223372036854775807 + 1 }}", "t:1: integer result does not fit 64 bits" },
    { "{{ 10 ** 19 }}", "t:1: integer result does not fit 64 bits" },
};

static int render(const char *source, const ns_jinja_opts *opts, ns_buf *text, ns_err *e)
{
    ns_buf taint = { 0 };
    json_t *vars = ns_json_parse(variables, strlen(variables), false, "variables", e);
    ns_jinja *t = vars ? ns_jinja_parse(source, strlen(source), "t", e) : NULL;
    int rc = t ? ns_jinja_render(t, vars, opts, text, &taint, e) : -1;
    if (rc == 0)
        assert_int_equal(text->len, taint.len);
    ns_jinja_free(t);
    json_decref(vars);
    ns_buf_release(&taint);
    return rc;
}

static void check(const struct rendered *table, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        ns_err e = { 0 };
        ns_buf text = { 0 };
        int rc = render(table[i].source, NULL, &text, &e);
        const char *got = rc ? NULL : text.data ? text.data : "";
        bool same = got && table[i].expected ? strcmp(got, table[i].expected) == 0 : !got && !table[i].expected;
        if (!same)
            print_message("template: %s\nexpected: %s\ngot:      %s\n", table[i].source,
                          table[i].expected ? table[i].expected : "an error", got ? got : e.msg);
        if (rc && (e.code == NS_OK || strncmp(e.msg, "t:", 2) != 0))
            print_message("template: %s\nerror without its place: %s\n", table[i].source, e.msg);
        bad += !same || (rc && (e.code == NS_OK || strncmp(e.msg, "t:", 2) != 0));
        ns_buf_release(&text);
    }
    assert_int_equal(bad, 0);
}

#define TABLE_TEST(name)                                     \
    static void test_##name(void **state)                    \
    {                                                        \
        (void)state;                                         \
        check(name, sizeof name / sizeof *name);             \
    }

TABLE_TEST(printing)
TABLE_TEST(arithmetic)
TABLE_TEST(comparison)
TABLE_TEST(access)
TABLE_TEST(methods)
TABLE_TEST(filters)
TABLE_TEST(json)
TABLE_TEST(is_tests)
TABLE_TEST(statements)
TABLE_TEST(white_space)
TABLE_TEST(syntax_errors)

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        ns_err e = { 0 };
        ns_buf text = { 0 };
        assert_int_equal(render(refusals[i].source, NULL, &text, &e), -1);
        assert_string_equal(e.msg, refusals[i].message);
        ns_buf_release(&text);
    }
}

/* Whatever a template does, it ends, and with an error that says which bound it met. */
static void test_bounds(void **state)
{
    static const struct refusal bounds[] = {
        { "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "steps" },
        { "{% set x = 'aaaaaaaaaaaaaaaa' * 100000 %}{% for a in range(1000) %}{{ x }}{% endfor %}", "MiB" },
        { "{{ 'a' * 9223372036854775807 }}", "MiB" },
        { "{{ [0] * 9223372036854775807 }}", "MiB" },
        { "{{ ([0] * 100000) * 100000 }}", "MiB" },
        { "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "MiB" },
        { "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "MiB" },
        { "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested deeper" },
        { "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "nested deeper" },
        { "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "nested deeper" },
        { "{{ 'x'.zfill(9223372036854775807) }}", "MiB" },
        { "{{ 'x'.ljust(9223372036854775807) }}", "MiB" },
        { "{{ ''|indent(9223372036854775807) }}", "MiB" },
        { "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if 'b' in x %}{% endif %}{% endfor %}", "steps" },
        { "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if x.rfind('b') %}{% endif %}{% endfor %}", "steps" },
        { "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% set y = x[-1] %}{% endfor %}", "steps" },
        { "{{ range(100001) }}", "range too big" },
    };
    (void)state;
    ns_jinja_opts o = ns_jinja_defaults();
    o.max_output = 1 << 20;
    o.max_memory = 32 << 20;
    o.max_steps = 1000000;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        ns_err e = { 0 };
        ns_buf text = { 0 };
        assert_int_equal(render(bounds[i].source, &o, &text, &e), -1);
        if (!strstr(e.msg, bounds[i].message))
            fail_msg("%s: %s", bounds[i].source, e.msg);
        ns_buf_release(&text);
    }
}

static void test_nesting(void **state)
{
    static const char *const units[][2] = { { "(", ")" }, { "[", "]" }, { "not ", "" }, { "-", "" } };
    (void)state;
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        ns_err e = { 0 };
        ns_buf src = { 0 }, text = { 0 };
        ns_buf_adds(&src, "{{ ");
        for (int i = 0; i < 5000; i++)
            ns_buf_adds(&src, units[u][0]);
        ns_buf_adds(&src, "1");
        for (int i = 0; i < 5000; i++)
            ns_buf_adds(&src, units[u][1]);
        ns_buf_adds(&src, " }}");
        assert_int_equal(render(src.data, NULL, &text, &e), -1);
        assert_true(strncmp(e.msg, "t:1: ", 5) == 0);
        ns_buf_release(&src);
        ns_buf_release(&text);
    }
}

/* Building a text piece by piece stays linear in memory: 20,000 pieces would otherwise need gigabytes. */
static void test_accumulation(void **state)
{
    static const char src[] = "{% set ns = namespace(x='') %}{% for i in range(20000) %}{% set ns.x = ns.x ~ 'twenty bytes of text' %}"
                              "{% endfor %}{{ ns.x|length }}";
    (void)state;
    ns_err e = { 0 };
    ns_buf text = { 0 };
    ns_jinja_opts o = ns_jinja_defaults();
    o.max_memory = 16 << 20;
    if (render(src, &o, &text, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(text.data, "400000");
    ns_buf_release(&text);
}

static void test_encoding(void **state)
{
    static const char bad[] = "a\xff";
    (void)state;
    ns_err e = { 0 };
    assert_null(ns_jinja_parse(bad, sizeof bad - 1, "t", &e));
    assert_string_equal(e.msg, "t: template is not UTF-8");
    ns_jinja_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printing),
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_access),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_is_tests),
        cmocka_unit_test(test_statements),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_syntax_errors),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
