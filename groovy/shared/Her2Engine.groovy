import groovy.transform.CompileStatic

import java.util.concurrent.BlockingQueue
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

/** One run of the engine's process, from its start to its certain end. */
@CompileStatic
class Her2Engine {

    static final String INSTALL_AGAIN = 'Run  her2bridge scripts install  again, then use the scripts that it writes.'
    static final String SEE_LOG =
        'Look at the end of QuPath\'s log (View, Show log); her2bridge doctor  in a terminal tries the engine.'

    private static final int SCHEMA = 1 // of docs/events.md
    private static final int TICK = 100 // milliseconds between two looks at the process
    private static final int GRACE = 5000 // milliseconds that the engine is given to end by itself
    private static final int FORCE = 2000 // milliseconds that a process is given after it was told to end
    private static final int DEAD_TICKS = 5 // looks at a dead process before what it has written counts as read
    private static final int KEPT_LINES = 50
    private static final int WAITING_LINES = 10_000
    private static final int LONGEST_LINE = 4000 // characters of the log
    private static final int LONGEST_EVENT = 50_000_000 // characters
    private static final int LINE_FEED = 10
    private static final int KILLED = 137 // the exit code of a process that the system has killed
    private static final String EVENT = 'event'
    private static final String LOG = 'log'
    private static final String END = 'end'
    private static final Set<String> LAST_EVENTS = ['run_finished', 'restore_finished', 'failed'] as Set

    private final List<String> command
    private final int silentAfter
    private final BlockingQueue<List<String>> told = new LinkedBlockingQueue<>() // [EVENT | LOG | END, line]
    private final Deque<String> log = new ArrayDeque<>()
    private final List<Map> events = []
    private final Set<ProcessHandle> children = [] as Set
    private Process process
    private Thread logReader
    private boolean interrupted = false
    private int deadTicks = 0

    Her2Engine(List<String> command, int silentAfter) {
        this.command = command
        this.silentAfter = silentAfter
    }

    /**
     * Starts the engine and hears it out. When this returns or throws, the engine and its children have ended.
     *
     * @return all events but {@code progress}; the last one says that the engine has done its work
     */
    List<Map> run(Her2Listener heard) {
        start()
        try {
            try {
                hearOut(heard)
            } finally {
                stop()
                tellRest(heard)
            }
            return events
        } catch (InterruptedException ignored) {
            interrupted = true
            throw new Her2Cancelled()
        } catch (Her2Failure failure) {
            throw withLog(failure)
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt()
            }
        }
    }

    /** The failure, with what the engine last wrote to standard error. */
    Her2Failure withLog(Her2Failure failure) {
        synchronized (log) {
            failure.log = log.toList()
        }
        return failure
    }

    // What the engine says

    private void start() {
        ProcessBuilder builder = new ProcessBuilder(command)
        ['PYTHONHOME', 'PYTHONPATH'].each { String name -> builder.environment().remove(name) }
        try {
            process = builder.start()
        } catch (IOException error) {
            throw new Her2Failure('Python could not be started.', command.first(), INSTALL_AGAIN, error)
        }
        inBackground('events') { hearEvents() }
        logReader = inBackground('log') { hearLog() }
    }

    private static Thread inBackground(String name, Closure work) {
        Thread thread = new Thread(work as Runnable, "her2bridge ${name}")
        thread.daemon = true
        thread.start()
        return thread
    }

    private void hearEvents() {
        eachLine(process.inputStream, LONGEST_EVENT) { String line -> told << [EVENT, line] }
        told << [END, '']
    }

    /** Drains standard error whatever becomes of its lines: a full pipe would stop the engine. */
    private void hearLog() {
        eachLine(process.errorStream, LONGEST_LINE) { String line ->
            synchronized (log) {
                log << line
                if (log.size() > KEPT_LINES) {
                    log.removeFirst()
                }
            }
            if (told.size() < WAITING_LINES) {
                told << [LOG, line]
            }
        }
    }

    /** Calls {@code take} with each line that is not blank; a line that is too long comes in pieces. */
    private static void eachLine(InputStream stream, int longest, Closure take) {
        StringBuilder line = new StringBuilder()
        try {
            Reader source = stream.newReader('UTF-8')
            for (int c = source.read(); c >= 0; c = source.read()) {
                if (c != LINE_FEED) {
                    line.append((char) c)
                }
                if (c == LINE_FEED || line.length() == longest) {
                    takeLine(line, take)
                }
            }
        } catch (IOException ignored) {
            // the process was ended while we read: what has come is all there is
        }
        takeLine(line, take)
    }

    private static void takeLine(StringBuilder line, Closure take) {
        String text = line.toString().trim()
        line.length = 0
        if (text) {
            take.call(text)
        }
    }

    /**
     * Hears until the event that ends a command. Silence is summed up over short waits, so that neither a computer
     * that slept nor a slow listener makes an engine look hung.
     */
    private void hearOut(Her2Listener heard) {
        long silence = 0
        long before = System.nanoTime()
        while (!heard.cancelled) {
            List<String> one = told.poll(TICK, TimeUnit.MILLISECONDS)
            long now = System.nanoTime()
            silence += Math.min((now - before).intdiv(1_000_000L) as long, 2L * TICK)
            before = now
            if (one == null || one[0] == END) {
                seeDeath(one != null)
            } else if (one[0] == LOG) {
                heard.onLog(one[1])
            } else if (isLast(one[1], heard)) {
                return
            } else {
                silence = 0
            }
            if (silence >= 1000L * silentAfter) {
                throw silent()
            }
        }
        throw new Her2Cancelled()
    }

    /** Its last words, which may say why it died. */
    private void tellRest(Her2Listener heard) {
        told.each { List<String> one ->
            if (one[0] == LOG) {
                heard.onLog(one[1])
            }
        }
    }

    private boolean isLast(String line, Her2Listener heard) {
        Map event = eventOf(line)
        if (event.type != 'progress') {
            events << event
        }
        heard.onEvent(event)
        if (event.type == 'failed') {
            throw Her2Failure.of(event)
        }
        return event.type in LAST_EVENTS
    }

    private static Map eventOf(String line) {
        Object event
        try {
            event = Her2Json.parse(line)
        } catch (Her2Json.Broken error) {
            throw new Her2Failure('The engine said something that is no event.', line.take(200), SEE_LOG, error)
        }
        if (!(event instanceof Map && event['type'] instanceof String)) {
            throw new Her2Failure('The engine said something that is no event.', line.take(200), SEE_LOG)
        }
        if (event['schema'] != null && event['schema'] != SCHEMA) {
            throw new Her2Failure('The engine is newer than this script.', line.take(200), INSTALL_AGAIN)
        }
        return (Map) event
    }

    // Its process

    /** Throws where the engine is dead and all has been read that it wrote. */
    private void seeDeath(boolean outputEnded) {
        seeChildren()
        deadTicks += process.alive ? 0 : 1 // a child may keep the output of a dead engine open
        if (outputEnded || deadTicks >= DEAD_TICKS) {
            throw died()
        }
    }

    private Her2Failure silent() {
        String what = "The engine has said nothing for ${silentAfter} s and was ended."
        return new Her2Failure(what, command.first(), SEE_LOG)
    }

    private Her2Failure died() {
        boolean ended = process.waitFor(FORCE, TimeUnit.MILLISECONDS)
        String how = ended ? "ended with exit code ${process.exitValue()}" : 'closed its output'
        String memory = ended && process.exitValue() == KILLED ? 'There may have been too little memory. ' : ''
        return new Her2Failure("The engine ${how} before its work was done.", command.first(), memory + SEE_LOG)
    }

    /** Children are noted while their parent lives: afterwards nothing tells whose they were. */
    private void seeChildren() {
        process.descendants().each { ProcessHandle child -> children << child }
    }

    /** Ends the engine: by closing its input, then by asking, then by force; and all that it has started. */
    private void stop() {
        try {
            process.outputStream.close()
        } catch (IOException ignored) {
            // it has ended by itself
        }
        for (int waited = 0; waited < GRACE && process.alive; waited += TICK) {
            seeChildren()
            awaitEnd([process.toHandle()], TICK)
        }
        seeChildren()
        for (boolean byForce in [false, true]) {
            List<ProcessHandle> all = children.toList() + process.toHandle()
            List<ProcessHandle> left = all.findAll { ProcessHandle one -> one.alive }
            left.each { ProcessHandle one -> byForce ? one.destroyForcibly() : one.destroy() }
            awaitEnd(left, FORCE)
        }
        awaitLog()
    }

    /** Waits until all have ended or the time is over; a second interrupt cuts this and all further waiting short. */
    private void awaitEnd(List<ProcessHandle> processes, int milliseconds) {
        CompletableFuture<?>[] ends = processes*.onExit() as CompletableFuture[]
        try {
            CompletableFuture.allOf(ends).get(interrupted ? 0 : milliseconds, TimeUnit.MILLISECONDS)
        } catch (ExecutionException | TimeoutException ignored) {
            // whoever called sees who is still alive
        } catch (InterruptedException ignored) {
            interrupted = true
        }
    }

    private void awaitLog() {
        try {
            logReader.join(interrupted ? 1 : FORCE)
        } catch (InterruptedException ignored) {
            interrupted = true
        }
    }

}

/** What is heard of the engine; called on the thread that runs it, and on no other. */
interface Her2Listener {

    /** An event of docs/events.md, as a Map with its {@code type}. */
    void onEvent(Map event)

    /** A line that the engine wrote to standard error, meant for QuPath's log. */
    void onLog(String line)

    /** Whether the user has asked to stop; asked several times a second. */
    boolean isCancelled()

}

/** Something failed: what, where, and what the user can do about it. */
@CompileStatic
class Her2Failure extends RuntimeException {

    final String what
    final String where
    final String nextStep

    /** The event that told it; null where the engine told none. */
    final Map event

    /** The last lines of the engine's standard error, at most fifty. */
    List<String> log = []

    Her2Failure(String what, String where, String nextStep, Throwable cause = null, Map event = null) {
        super("${what}\n  where: ${where}\n  next:  ${nextStep}", cause)
        this.what = what
        this.where = where
        this.nextStep = nextStep
        this.event = event
    }

    /** The failure that an event {@code failed} or {@code image_failed} tells. */
    static Her2Failure of(Map event) {
        return new Her2Failure(event.what as String, event.where as String, event.next_step as String, null, event)
    }

    /** What nobody thought of, as a failure. */
    static Her2Failure unforeseen(Throwable error) {
        StackTraceElement place = error.stackTrace.find { StackTraceElement one -> one.fileName =~ /\.groovy$/ }
        String where = place ? "${place.fileName}, line ${place.lineNumber}" : 'unknown'
        return new Her2Failure("Something went wrong that the script does not know: ${error}", where,
            'Please report it with QuPath\'s log (View, Show log).', error)
    }

}

/** The user asked to stop; the engine has ended. */
@CompileStatic
class Her2Cancelled extends RuntimeException {

    Her2Cancelled() {
        super('cancelled')
    }

}
