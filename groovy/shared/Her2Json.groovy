import groovy.transform.CompileStatic

import java.util.regex.Pattern

/**
 * JSON, as the engine and QuPath write it: to and from Maps, Lists, Strings, Longs, Doubles, Booleans and null. Works
 * piece by piece, so that a slide's tiles need not lie in memory as text.
 */
@CompileStatic
class Her2Json {

    /** A text that is not JSON. */
    static class Broken extends IllegalArgumentException {

        Broken(String message) {
            super(message)
        }

    }

    private static final int DEEPEST = 100
    private static final char SPACE = 32
    private static final char SLASH = 47
    private static final char UNICODE = 117 // the u of an escape
    private static final String ESCAPED = '"\\/bfnrt'
    private static final String MEANT = '"\\/\b\f\n\r\t'
    private static final Pattern WHOLE = ~/-?(0|[1-9]\d{0,17})/
    private static final Pattern NUMBER = ~/-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/
    private static final Map<String, Object> WORDS = [
        'true': true, 'false': false, 'null': null,
        // no JSON, but QuPath writes it:
        'NaN': Double.NaN, 'Infinity': Double.POSITIVE_INFINITY, '-Infinity': Double.NEGATIVE_INFINITY,
    ].asImmutable() as Map<String, Object>

    private final Reader source
    private final char[] buffer = new char[8192]
    private int filled = 0
    private int used = 0
    private long place = -1
    private int next // the character that is to be read; -1 at the end

    private Her2Json(Reader source) {
        this.source = source
        advance()
    }

    /**
     * The value of a JSON text.
     *
     * @throws Broken where the text is not JSON
     */
    static Object parse(String text) {
        return parse(new StringReader(text))
    }

    /**
     * The one value that a reader holds.
     *
     * @throws Broken where the text is not JSON
     */
    static Object parse(Reader source) {
        Her2Json json = new Her2Json(source)
        Object value = json.value(0)
        expectEnd(json)
        return value
    }

    /** A value as JSON text. */
    static String text(Object value) {
        StringWriter out = new StringWriter()
        write(out, value)
        return out.toString()
    }

    /**
     * Writes a value: Maps, Iterables, Iterators, arrays, texts, numbers, booleans, null. NaN and infinities, which
     * JSON does not have, become null.
     *
     * @throws IllegalArgumentException for any other value
     */
    static void write(Writer out, Object value) {
        if (value instanceof Number) {
            out.write(Double.isFinite(value.doubleValue()) ? value.toString() : 'null')
        } else if (value == null) {
            out.write('null')
        } else if (value instanceof Boolean) {
            out.write(value.toString())
        } else if (value instanceof CharSequence) {
            writeText(out, value.toString())
        } else if (value instanceof Map) {
            writeMembers(out, value)
        } else if (value instanceof Iterable || value instanceof Iterator || value.class.array) {
            writeElements(out, value.iterator())
        } else {
            throw new IllegalArgumentException("no JSON for ${value.class.name}")
        }
    }

    private static void writeMembers(Writer out, Map<?, ?> members) {
        out.write('{')
        String separator = ''
        for (Map.Entry<?, ?> member in members.entrySet()) {
            out.write(separator)
            writeText(out, member.key.toString())
            out.write(': ')
            write(out, member.value)
            separator = ', '
        }
        out.write('}')
    }

    private static void writeElements(Writer out, Iterator<?> elements) {
        out.write('[')
        String separator = ''
        while (elements.hasNext()) {
            out.write(separator)
            write(out, elements.next())
            separator = ', '
        }
        out.write(']')
    }

    private static void writeText(Writer out, String text) {
        out.write('"')
        for (char c in text.toCharArray()) {
            int escape = MEANT.indexOf((int) c)
            if (escape >= 0 && c != SLASH) {
                out.write('\\' + ESCAPED.charAt(escape))
            } else if (c < SPACE || Character.isSurrogate(c)) {
                out.write(String.format('\\u%04x', (int) c))
            } else {
                out.write((int) c)
            }
        }
        out.write('"')
    }

    private Object value(int depth) {
        skipSpace()
        if (depth > DEEPEST) {
            throw wrong('nesting')
        }
        if (at('{')) {
            Map<String, Object> members = [:]
            eachMember { String key -> members[key] = value(depth + 1) }
            return members
        }
        if (at('[')) {
            List<Object> elements = []
            eachElement { elements << value(depth + 1) }
            return elements
        }
        return at('"') ? readText() : readWord()
    }

    /** Reads an object; {@code take} is called with each key and reads the value. */
    private void eachMember(Closure take) {
        eachBetween('{', '}') {
            skipSpace()
            String key = readText()
            skipSpace()
            expect(':')
            take.call(key)
        }
    }

    /** Reads an array; {@code take} is called before each element and reads it. */
    private void eachElement(Closure take) {
        eachBetween('[', ']', take)
    }

    private void eachBetween(String opening, String closing, Closure take) {
        expect(opening)
        skipSpace()
        boolean first = true
        while (!at(closing)) {
            if (!first) {
                expect(',')
            }
            take.call()
            skipSpace()
            first = false
        }
        advance()
    }

    private String readText() {
        expect('"')
        StringBuilder text = new StringBuilder()
        while (!at('"')) {
            if (next < SPACE) { // a control character, or the end
                throw wrong('text')
            }
            text.append(at('\\') ? readEscape() : readCharacter())
        }
        advance()
        return text.toString()
    }

    private char readEscape() {
        advance()
        char c = readCharacter()
        if (c == UNICODE) {
            String digits = "${readCharacter()}${readCharacter()}${readCharacter()}${readCharacter()}"
            if (!(digits ==~ /[0-9a-fA-F]{4}/)) {
                throw wrong('escape')
            }
            return (char) Integer.parseInt(digits, 16)
        }
        int meant = ESCAPED.indexOf((int) c)
        if (meant < 0) {
            throw wrong('escape')
        }
        return MEANT.charAt(meant)
    }

    private Object readWord() {
        StringBuilder read = new StringBuilder()
        while (next > SPACE && !at(',') && !at(']') && !at('}')) {
            read.append(readCharacter())
        }
        String word = read
        if (WHOLE.matcher(word).matches()) {
            return Long.valueOf(word)
        }
        if (NUMBER.matcher(word).matches()) {
            return Double.valueOf(word)
        }
        if (!WORDS.containsKey(word)) {
            throw wrong('value')
        }
        return WORDS[word]
    }

    private char readCharacter() {
        char c = (char) next
        advance()
        return c
    }

    private void skipSpace() {
        while (next == 32 || next == 9 || next == 10 || next == 13) {
            advance()
        }
    }

    private static void expectEnd(Her2Json json) {
        json.skipSpace()
        if (json.next >= 0) {
            throw json.wrong('end')
        }
    }

    private void expect(String character) {
        if (!at(character)) {
            throw wrong("'${character}'")
        }
        advance()
    }

    private boolean at(String character) {
        return next == (int) character.charAt(0)
    }

    private void advance() {
        if (used == filled) {
            filled = source.read(buffer)
            used = 0
        }
        next = filled < 0 ? -1 : (int) buffer[used]
        used += filled < 0 ? 0 : 1
        place++
    }

    private Broken wrong(String wanted) {
        return new Broken("no JSON: no ${wanted} at character ${place}")
    }

}
