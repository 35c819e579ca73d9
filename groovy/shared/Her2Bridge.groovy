import groovy.transform.CompileStatic

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.util.stream.Stream

/**
 * What QuPath's scripts need of her2bridge, and what itself needs neither QuPath nor JavaFX: starts the engine (Python)
 * and hears its events, writes the request and reads the answer, knows settings and sentences. Research use only.
 *
 * Plain Groovy 4 and Java 17, of Groovy only the core: QuPath ships no groovy-json. Her2Json, Her2Engine and Her2Words
 * must have been parsed by the same class loader.
 */
@CompileStatic
class Her2Bridge {

    /** The settings file that may lie beside the scripts. */
    static final String SETTINGS_FILE = 'her2bridge settings.txt'

    /** Settings that are sent to the engine, and what each one is. */
    static final Map<String, String> ENGINE_SETTINGS = [
        region_classes: 'texts', exclude_classes: 'texts', class_prefix: 'text', min_overlap: 'number', model: 'text',
        device: 'text', require_gpu: 'switch', precision: 'text', runtime: 'text', batch_size: 'count',
        specimen: 'text', mpp: 'number', whspn: 'text', score_settings: 'path',
    ].asImmutable()

    /** Settings that concern the scripts alone. */
    static final Map<String, String> SCRIPT_SETTINGS =
        [blind: 'switch', lock: 'switch', fill: 'switch', opacity: 'number'].asImmutable()

    private static final String INSTALL_AGAIN = Her2Engine.INSTALL_AGAIN
    private static final String SEE_LOG = Her2Engine.SEE_LOG

    /** What is heard of the engine. */
    interface Listener extends Her2Listener {
    }

    /** The names that her2bridge writes into projects: shared/names.json. */
    final Map names

    /** Seconds without an event after which the engine counts as hung. */
    int silentAfter = 120

    private final String python
    private final Set<File> requests = [] as Set

    /**
     * @param python absolute path of the interpreter that has her2bridge
     * @param shared the folder of this file
     * @param installed the version of her2bridge that wrote the script
     * @throws Her2Failure where the interpreter is gone, or the script is of another version
     */
    Her2Bridge(String python, File shared, String installed) {
        if (!new File(python).file) {
            throw new Her2Failure('The Python that her2bridge was installed in is no longer there.', python,
                INSTALL_AGAIN)
        }
        this.python = python
        names = readObject(new File(shared, 'names.json'), INSTALL_AGAIN)
        if (names.version != installed) {
            throw new Her2Failure("This script was written by her2bridge ${installed}; ${names.version} is installed.",
                shared.path, INSTALL_AGAIN)
        }
    }

    /**
     * Runs {@code work} so that a failure ends in a message of three parts, never in a stack trace.
     *
     * @param tell called with the Her2Failure; whatever else went wrong is made one, with its cause
     * @param work what the script does
     * @return what {@code work} returned; null after a failure that {@code tell} did not throw on, or a cancel
     */
    static Object guarded(Closure tell, Closure work) {
        try {
            return work.call()
        } catch (Her2Cancelled ignored) {
            return null
        } catch (Her2Failure failure) {
            tell.call(failure)
        } catch (Exception unforeseen) { // groovylint-disable-line CatchException
            tell.call(Her2Failure.unforeseen(unforeseen))
        }
        return null
    }

    /** A listener of closures named {@code onEvent}, {@code onLog} and {@code isCancelled}; each may be left out. */
    static Listener listener(Map<String, Closure> calls) {
        Map<String, Closure> all = [onEvent: { Map event -> }, onLog: { String line -> }, isCancelled: { false }]
        all.putAll(calls)
        return new Listener() {

            @Override
            void onEvent(Map event) {
                all.onEvent.call(event)
            }

            @Override
            void onLog(String line) {
                all.onLog.call(line)
            }

            @Override
            boolean isCancelled() {
                return all.isCancelled.call() as boolean
            }

        }
    }

    // The settings

    /**
     * The settings that the user gave: typed, and only those that were given.
     *
     * @param beside the folder of the scripts, in which {@code her2bridge settings.txt} may lie; or null
     * @param arguments of the script, {@code key=value}; they win over the file, and an empty value takes a key back
     * @throws Her2Failure for a key that is unknown or a value that cannot be
     */
    Map<String, Object> settings(File beside, List<String> arguments) {
        Map<String, Object> given = [:]
        File file = beside == null ? null : new File(beside, SETTINGS_FILE)
        if (file?.file) {
            readSettings(file).each { String line -> setOne(given, line, file.path, beside) }
        }
        arguments.each { String one -> setOne(given, one, 'the script\'s arguments', beside) }
        return given
    }

    /** Those of the settings that belong into a request. */
    static Map<String, Object> forEngine(Map<String, Object> settings) {
        return settings.findAll { String key, Object value -> key in ENGINE_SETTINGS.keySet() }
    }

    private static List<String> readSettings(File file) {
        String text
        try {
            text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(file.bytes)).toString()
        } catch (CharacterCodingException error) {
            throw new Her2Failure('The settings file is not UTF-8 text.', file.path,
                'Save it as UTF-8; the Editor of Windows offers this under Save as, Encoding.', error)
        }
        return text.replace('\uFEFF', '').readLines()*.trim().findAll { String line -> line && !line.startsWith('#') }
    }

    private static void setOne(Map<String, Object> given, String line, String where, File beside) {
        int sign = line.indexOf('=')
        String key = (sign < 0 ? line : line.substring(0, sign)).trim().toLowerCase(Locale.ROOT).replace('-', '_')
        String kind = (ENGINE_SETTINGS + SCRIPT_SETTINGS)[key]
        if (sign < 0 || kind == null) {
            String known = (ENGINE_SETTINGS.keySet() + SCRIPT_SETTINGS.keySet()).join(', ')
            throw new Her2Failure("'${line}' is no setting that her2bridge knows.", where,
                "Write  key = value.  The keys are: ${known}.")
        }
        String value = line.substring(sign + 1).trim()
        if (value) {
            given[key] = typed(kind, key, value, where, beside)
        } else {
            given.remove(key)
        }
    }

    private static Object typed(String kind, String key, String value, String where, File beside) {
        switch (kind) {
            case 'texts':
                return value.split(',')*.trim().findAll()
            case 'text':
                return value
            case 'path':
                return (new File(value).absolute ? new File(value) : new File(beside, value)).absolutePath
            case 'switch':
                Boolean on = ['true': true, 'yes': true, 'false': false, 'no': false][value.toLowerCase(Locale.ROOT)]
                return on == null ? refuse(key, value, where, 'true or false') : on
            case 'count':
                return value ==~ /\d{1,9}/ ? value as Integer : refuse(key, value, where, 'a whole number')
            default:
                return value ==~ /\d+(\.\d+)?/ ? value as Double
                    : refuse(key, value, where, 'a number with a decimal point, for instance 0.25')
        }
    }

    private static Object refuse(String key, String value, String where, String wanted) {
        throw new Her2Failure("The setting ${key} cannot be '${value}'.", where, "Give ${wanted}.")
    }

    // The request and the answer

    /** A fresh temporary folder for one request; {@link #discard} deletes it. */
    File newRequest() {
        try {
            File folder = Files.createTempDirectory('her2bridge-').toFile()
            requests << folder
            return folder
        } catch (IOException error) {
            throw new Her2Failure('No temporary folder can be made.', System.getProperty('java.io.tmpdir'),
                'Make room on that disk, or ask who looks after this computer.', error)
        }
    }

    /** Writes {@code image.json}: what the engine must know of the image. */
    void writeImage(File folder, Map image) {
        write(new File(folder, 'image.json'), image)
    }

    /**
     * Writes {@code tiles.json}: our earlier tiles, in columns.
     *
     * @param columns lists, iterables or arrays; NaN becomes null
     */
    void writeTiles(File folder, Map columns) {
        write(new File(folder, 'tiles.json'), columns)
    }

    /** What {@code update.json} tells the script to change in the image. */
    Map update(File folder) {
        return readObject(new File(folder, 'update.json'), SEE_LOG)
    }

    /**
     * Deletes a folder that {@link #newRequest} made. Windows lets go of a file only some time after the process that
     * had it open has ended, so it is tried for two seconds.
     *
     * @return false where something could not be deleted
     */
    boolean discard(File folder) {
        if (!requests.remove(folder)) {
            throw new IllegalArgumentException("not a request: ${folder}")
        }
        for (int tries = 0; folder.exists() && tries < 20; tries++) {
            if (tries) {
                pause(100)
            }
            deleteBelow(folder.toPath())
        }
        return !folder.exists()
    }

    private static void deleteBelow(Path folder) {
        try (Stream<Path> found = Files.walk(folder)) {
            found.sorted(Comparator.reverseOrder()).each { Path path -> path.toFile().delete() }
        } catch (IOException | UncheckedIOException ignored) {
            return // something vanished or is still held: the next try sees
        }
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds)
        } catch (InterruptedException ignored) {
            Thread.currentThread().interrupt()
        }
    }

    private static void write(File file, Object value) {
        try {
            file.withWriter('UTF-8') { Writer out -> Her2Json.write(out, value) }
        } catch (IOException error) {
            throw new Her2Failure('The request could not be written.', file.path, 'Make room on that disk.', error)
        }
    }

    private static Map readObject(File file, String nextStep) {
        Object value = reading(file, nextStep) { Reader source -> Her2Json.parse(source) }
        if (value instanceof Map) {
            return value
        }
        throw damaged(file, nextStep, null)
    }

    private static <T> T reading(File file, String nextStep, Closure<T> read) {
        try {
            return file.withReader('UTF-8') { Reader source -> read.call(source) }
        } catch (IOException | Her2Json.Broken error) {
            throw damaged(file, nextStep, error)
        }
    }

    private static Her2Failure damaged(File file, String nextStep, Exception error) {
        return new Her2Failure("${file.name} is missing or damaged.", file.path, nextStep, error)
    }

    // The engine

    /**
     * Scores the image of a request.
     *
     * @param folder the request; afterwards it also holds the answer
     * @return the event {@code image_scored}
     * @throws Her2Failure where the image or the engine failed
     * @throws Her2Cancelled where the listener or an interrupt asked to stop
     */
    Map run(File folder, Listener heard) {
        Her2Engine engine = engine(['scripts', 'answer', folder.path, '--watch-stdin'])
        List<Map> events = engine.run(heard)
        Map failed = events.find { Map event -> event.type == 'image_failed' }
        if (failed) {
            throw engine.withLog(Her2Failure.of(failed))
        }
        Map scored = events.reverse().find { Map event -> event.type == 'image_scored' }
        if (scored == null) {
            throw engine.withLog(new Her2Failure('The engine ended without a score.', python, SEE_LOG))
        }
        return scored
    }

    /**
     * Runs the engine with any command that tells events.
     *
     * @param arguments of her2bridge
     * @return all events but {@code progress}; an {@code image_failed} is one of them and stops nothing
     * @throws Her2Failure where the engine failed as a whole, died, fell silent or said what is no event
     * @throws Her2Cancelled where the listener or an interrupt asked to stop
     */
    List<Map> runEngine(List<String> arguments, Listener heard) {
        return engine(arguments).run(heard)
    }

    private Her2Engine engine(List<String> arguments) {
        return new Her2Engine(command(arguments), silentAfter)
    }

    /** What is started: no shell, so that no path needs quoting; isolated from the user's Python settings. */
    protected List<String> command(List<String> arguments) {
        return [python, '-I', '-X', 'utf8', '-m', 'her2bridge'] + arguments
    }

    // The words

    /** The sentence for a report: {@code AI-assisted, research use only: 3+ 34 %, … of 812 tumour tiles.} */
    static String sentence(Map scored) {
        return Her2Words.sentence(scored)
    }

    /** The result for a dialog: reasons for review first, then score, status, shares and the sentence. */
    static String summary(Map scored) {
        return Her2Words.summary(scored)
    }

}
