/*
 * Tests of what the scripts share and what needs no QuPath.
 *
 *     groovy SharedTests.groovy SHARED PYTHON FAKE_ENGINE FOLDER NAMES
 *
 * There is no JUnit here: a test is a closure that throws where something is wrong. Each test whose name matches the
 * pattern NAMES becomes a line: ok or failed, its name, what went wrong. test_shared.py reads them.
 */

def (shared, python, fakeEngine, scratch) = [new File(args[0]), args[1], args[2], new File(args[3])]
def loader = new GroovyClassLoader(getClass().classLoader)
def load = { String name -> loader.parseClass(new GroovyCodeSource(new File(shared, "${name}.groovy"), 'UTF-8')) }
['Her2Json', 'Her2Engine', 'Her2Words', 'Her2Bridge'].each(load)
def names = ['Her2Json', 'Her2Failure', 'Her2Cancelled', 'Her2Bridge']
def (Json, Failure, Cancelled, Bridge) = names.collect { loader.loadClass(it) }
String version = Json.parse(new File(shared, 'names.json').getText('UTF-8')).version

/** The real bridge, whose Python runs the fake engine instead of the module her2bridge. */
def FakeBridge = loader.parseClass('''
    class FakeBridge extends Her2Bridge {
        List<String> instead
        FakeBridge(String python, File shared, String installed) { super(python, shared, installed) }
        @Override protected List<String> command(List<String> arguments) {
            List<String> real = super.command(arguments)
            int module = real.indexOf('-m')
            assert real[module + 1] == 'her2bridge'
            return real.take(module) + instead + real.drop(module + 2)
        }
    }''')

def tests = [:]
def bridge = { -> Bridge.newInstance(python, shared, version) }
def fake = { String way ->
    def made = FakeBridge.newInstance(python, shared, version)
    made.instead = [fakeEngine, way]
    made.silentAfter = 30
    made
}
def fails = { Class kind, Closure work ->
    try {
        work()
    } catch (Throwable thrown) {
        assert kind.isInstance(thrown), "${thrown}"
        return thrown
    }
    assert false, "nothing was thrown where ${kind.simpleName} was expected"
}
def isAlive = { long pid ->
    def state = new File("/proc/${pid}/stat")
    boolean zombie = state.file && state.text.replaceAll(/.*\) /, '').startsWith('Z')
    !zombie && ProcessHandle.of(pid).map { it.alive }.orElse(false)
}
def assertAllEnded = { File folder ->
    def pids = new File(folder, 'pids').text.tokenize()*.toLong()
    assert pids.size() == 2
    assert pids.every { !isAlive(it) }
}
def quiet = Bridge.listener([:])

// JSON

tests['JSON that Python wrote comes back the same'] = {
    ['corpus.json', 'corpus-ascii.json'].each { name -> // test_shared.py compares
        def value = new File(scratch, name).withReader('UTF-8') { Json.parse(it) }
        new File(scratch, "again-${name}").withWriter('UTF-8') { Json.write(it, value) }
    }
}

tests['texts, numbers and nesting are read'] = {
    assert Json.parse(' {"a" : [1, -2.5e-3, "x\\u00e9\\ud83d\\ude00\\n\\"/\\\\\\/", true, false, null, {}, []]} ') ==
        [a: [1L, -0.0025d, 'x\u00e9\ud83d\ude00\n"/\\/', true, false, null, [:], []]]
    assert Json.parse('123456789012345678901') == 1.2345678901234568E20d
}

tests['QuPath\'s NaN is read, and never written'] = {
    assert Json.parse('[NaN, -Infinity]')[0].naN
    assert Json.text([Double.NaN, Float.NaN, Double.POSITIVE_INFINITY, 1.5f]) == '[null, null, null, 1.5]'
}

tests['arrays, iterators and odd characters are written'] = {
    assert Json.text([a: [0.5d, 1d] as double[], b: [[1, 2] as double[]] as double[][], c: [1, 2].iterator()]) ==
        '{"a": [0.5, 1.0], "b": [[1.0, 2.0]], "c": [1, 2]}'
    assert Json.text("é/\"\\\n\u0001${'😀'}") == '"é/\\"\\\\\\n\\u0001\\ud83d\\ude00"'
    assert Json.text([(null): true, (1): null]) == '{"null": true, "1": null}'
    fails(IllegalArgumentException) { Json.text([new Object()]) }
}

[
    '', ' ', '{', '[', '[1,]', '[,1]', '[1 2]', '{"a"}', '{"a":}', '{"a":1,}', '{a: 1}', '"abc', '"\\x"', '"\\u12g4"',
    '"a\nb"', '01', '1.', '.5', '+1', '--1', '1e', 'tru', 'nan', '[1]]', '{} {}', '[1}', '\u0000',
    '[' * 200 + ']' * 200,
].eachWithIndex { broken, i ->
    tests["broken JSON is refused, ${i}"] = {
        fails(IllegalArgumentException) { Json.parse(broken) }
    }
}

// The bridge, its settings

tests['a Python that is gone is told'] = {
    def failure = fails(Failure) { Bridge.newInstance('/no/such/python', shared, version) }
    assert failure.where == '/no/such/python'
    assert failure.nextStep.contains('her2bridge scripts install')
    assert failure.message == "${failure.what}\n  where: ${failure.where}\n  next:  ${failure.nextStep}"
}

tests['a script of another version is told'] = {
    def failure = fails(Failure) { Bridge.newInstance(python, shared, '0.0.1') }
    assert failure.what.contains('0.0.1') && failure.what.contains(version)
}

tests['an installation without its names is told'] = {
    def failure = fails(Failure) { Bridge.newInstance(python, scratch, version) }
    assert failure.what.contains('names.json')
}

tests['the names are there'] = {
    assert bridge().names.ownership_key == '_her2bridge'
}

tests['settings are typed'] = {
    def given = ['region_classes=Tumor, Tumor: x', 'min-overlap = 0.5', 'require_gpu=yes', 'lock=false', 'batch_size=8',
                 'Device=cuda:1', 'specimen=not stated', 'model=C:\\models\\ä = b']
    assert bridge().settings(null, given) == [
        region_classes: ['Tumor', 'Tumor: x'], min_overlap: 0.5d, require_gpu: true, lock: false, batch_size: 8,
        device: 'cuda:1', specimen: 'not stated', model: 'C:\\models\\ä = b',
    ]
    assert bridge().settings(null, []) == [:]
}

def settingsFile = { Object content ->
    def beside = new File(scratch, 'settings ä')
    beside.mkdirs()
    new File(beside, 'her2bridge settings.txt').bytes = content instanceof String ? content.getBytes('UTF-8') : content
    beside
}

tests['arguments win over the file; an empty one takes a setting back'] = {
    def lines = ['\uFEFF# Größe', 'mpp = 0.25', '', '  class_prefix = HER2é', 'score_settings = own.toml', '']
    def beside = settingsFile(lines.join('\r\n'))
    assert bridge().settings(beside, ['mpp=0.5', 'score_settings=']) == [mpp: 0.5d, class_prefix: 'HER2é']
    assert bridge().settings(beside, []).score_settings == new File(beside, 'own.toml').absolutePath
    assert bridge().settings(scratch, []) == [:]
}

tests['an unknown setting is told, with those that are known'] = {
    def beside = settingsFile('sample = biopsy')
    def failure = fails(Failure) { bridge().settings(beside, []) }
    assert failure.what.contains('sample = biopsy')
    assert failure.where.endsWith('her2bridge settings.txt')
    assert failure.nextStep.contains('specimen') && failure.nextStep.contains('blind')
    fails(Failure) { bridge().settings(null, ['specimen']) }
    fails(Failure) { bridge().settings(null, ['=x']) }
}

['mpp=0,25', 'mpp=NaN', 'batch_size=2.5', 'batch_size=99999999999', 'require_gpu=maybe', 'opacity=-1'].each { wrong ->
    tests["no setting: ${wrong}"] = {
        def failure = fails(Failure) { bridge().settings(null, [wrong]) }
        assert failure.what.contains(wrong.tokenize('=')[1])
        assert failure.where == 'the script\'s arguments'
    }
}

tests['a settings file that is not UTF-8 is told'] = {
    def failure = fails(Failure) { bridge().settings(settingsFile('class_prefix = ä'.getBytes('ISO-8859-1')), []) }
    assert failure.nextStep.contains('UTF-8')
}

tests['the engine is not told what concerns the scripts alone'] = {
    assert Bridge.forEngine([mpp: 0.25d, blind: true, lock: true, fill: true, opacity: 0.5d, device: 'cpu']) ==
        [mpp: 0.25d, device: 'cpu']
}

tests['what goes wrong in a script ends in three parts'] = {
    def told = []
    assert Bridge.guarded({ told << it }) { 42 } == 42
    assert Bridge.guarded({ told << it }) { throw Cancelled.newInstance() } == null
    assert told == []
    def failure = Failure.newInstance('a', 'b', 'c')
    assert Bridge.guarded({ told << it }) { throw failure } == null
    assert Bridge.guarded({ told << it }) { null.size() } == null
    assert told[0].is(failure)
    assert told[1].cause instanceof NullPointerException
    assert told[1].where ==~ /SharedTests\.groovy, line \d+/
    assert fails(Failure) { Bridge.guarded({ throw it }) { throw failure } }.is(failure)
}

// The request and the answer

tests['two hundred thousand tiles are written, little by little'] = {
    int n = 200_000
    def lazily = { Closure make ->
        def each = (0..<n).iterator()
        [hasNext: { each.hasNext() }, next: { make(each.next()) }] as Iterator
    }
    def columns = [
        ids: lazily { "id-${it}" },
        bounds: lazily { [it * 264.5d, 0d, it * 264.5d + 264.5d, 264.5d] as double[] },
        measurements: ['HER2: p(0)': lazily { it % 2 ? Float.NaN : 0.1f }],
    ]
    def one = bridge()
    def folder = one.newRequest()
    one.writeTiles(folder, columns)
    new File(folder, 'tiles.json').renameTo(new File(scratch, 'tiles.json'))
    assert one.discard(folder)
}

tests['an image is written as UTF-8'] = {
    def one = bridge()
    def folder = one.newRequest()
    one.writeImage(folder, [name: 'Größe 大'])
    assert new File(folder, 'image.json').getText('UTF-8') == '{"name": "Größe 大"}'
    assert one.discard(folder)
}

tests['an answer is read'] = {
    def one = bridge()
    def folder = one.newRequest()
    def write = { String name, String text -> new File(folder, name).setText(text, 'UTF-8') }
    write('update.json', '{"schema": 1, "remove": ["ä"], "metadata": {"HER2 AI score": null}}')
    assert one.update(folder) == [schema: 1, remove: ['ä'], metadata: ['HER2 AI score': null]]
    assert one.discard(folder)
}

tests['an answer that is missing or damaged is told'] = {
    def one = bridge()
    def folder = one.newRequest()
    assert fails(Failure) { one.update(folder) }.what.contains('update.json')
    new File(folder, 'update.json').text = '[1]'
    fails(Failure) { one.update(folder) }
    assert one.discard(folder)
}

tests['only a request can be discarded, with all that is in it'] = {
    def one = bridge()
    def folder = one.newRequest()
    new File(folder, 'a/b ä').mkdirs()
    new File(folder, 'a/b ä/c.txt').text = 'c'
    assert one.discard(folder)
    assert !folder.exists()
    fails(IllegalArgumentException) { one.discard(folder) }
    fails(IllegalArgumentException) { bridge().discard(scratch) }
    assert scratch.exists()
}

tests['a request that cannot be written is told'] = {
    assert fails(Failure) { bridge().writeImage(new File(scratch, 'not there'), [:]) }.where.endsWith('image.json')
}

// The engine

/** Runs the fake engine in a request of its own and hands what came of it to a closure. */
def running = { String way, Closure use ->
    def one = fake(way)
    def folder = one.newRequest()
    use(one, folder)
    assert one.discard(folder)
}

tests['a score is heard, event by event'] = {
    running('well') { one, folder ->
        def types = []
        def scored = one.run(folder, Bridge.listener(onEvent: { types << it.type }))
        assert scored.score == '2+' && scored.image == 'core_1.tif – ä'
        assert types == ['run_started', 'progress', 'from_tomorrow', 'progress', 'image_scored', 'run_finished']
        def seen = Json.parse(new File(folder, 'seen.json').text)
        assert seen == [argv: ['scripts', 'answer', folder.path, '--watch-stdin'], isolated: 1, utf8: 1,
                        PYTHONPATH: null, PYTHONHOME: null]
    }
}

tests['arguments arrive as they are'] = {
    running('well') { one, folder ->
        def odd = ['with space', 'qu"ote', '\\\\server\\share ä', '$HOME', '*', '', 'ümläut;&|']
        def events = one.runEngine(['run', 'x', folder.path, *odd], quiet)
        assert Json.parse(new File(folder, 'seen.json').text).argv.drop(3) == odd
        assert events*.type == ['run_started', 'from_tomorrow', 'image_scored', 'run_finished']
    }
}

tests['a slow engine is waited for, whatever it says'] = {
    running('slow') { one, folder ->
        one.silentAfter = 3
        assert one.run(folder, quiet).score == '2+'
    }
}

tests['a slow listener does not make the engine look silent'] = {
    running('pauses') { one, folder ->
        one.silentAfter = 4
        def sleepy = Bridge.listener(onEvent: { sleep(it.type == 'progress' ? 4300 : 0) })
        assert one.run(folder, sleepy).score == '2+'
    }
}

tests['a dead engine is told, with its last words'] = {
    running('dies') { one, folder ->
        def lines = []
        def failure = fails(Failure) { one.run(folder, Bridge.listener(onLog: { lines << it })) }
        assert failure.what.contains('exit code 3')
        assert failure.log == ['Traceback: no such thing – ä']
        assert lines == failure.log
        assert !failure.message.contains('Traceback')
        assert failure.where == python
    }
}

tests['an engine that was killed for want of memory is told'] = {
    running('is_killed') { one, folder ->
        assert fails(Failure) { one.run(folder, quiet) }.nextStep.contains('too little memory')
    }
}

tests['an engine that stops in the middle is told'] = {
    running('ends_in_the_middle') { one, folder ->
        assert fails(Failure) { one.run(folder, quiet) }.what.contains('exit code 0')
    }
}

tests['a dead engine is noticed though its child holds the pipes; the child is ended'] = {
    running('dies_before_its_child') { one, folder ->
        assert fails(Failure) { one.run(folder, quiet) }.what.contains('exit code 3')
        assertAllEnded(folder)
    }
}

tests['a flood of log lines blocks nothing'] = {
    running('floods') { one, folder ->
        int lines = 0
        assert one.run(folder, Bridge.listener(onLog: { lines++; assert it.length() <= 4000 })).score == '2+'
        assert lines > 0
    }
}

tests['log lines are no sign of life'] = {
    running('floods_and_says_nothing') { one, folder ->
        one.silentAfter = 2
        def failure = fails(Failure) { one.run(folder, quiet) }
        assert failure.what.contains('nothing for 2 s')
        assert failure.log.size() == 50
    }
}

tests['a silent engine is ended'] = {
    running('is_silent') { one, folder ->
        one.silentAfter = 1
        assert fails(Failure) { one.run(folder, quiet) }.what.contains('nothing for 1 s')
    }
}

['breaks', 'tells_a_list'].each { way ->
    tests["what is no event is told: ${way}"] = {
        running(way) { one, folder ->
            def failure = fails(Failure) { one.run(folder, quiet) }
            assert failure.what.contains('no event')
            assert failure.where.startsWith(way == 'breaks' ? '{"type": "image_scored"' : '[1, 2]')
        }
    }
}

tests['an engine that speaks a newer schema is told'] = {
    running('is_newer') { one, folder ->
        assert fails(Failure) { one.run(folder, quiet) }.nextStep.contains('scripts install')
    }
}

tests['a failure is told in the engine\'s own three parts'] = {
    running('fails') { one, folder ->
        def failure = fails(Failure) { one.run(folder, quiet) }
        assert failure.message == 'There is no region.\n  where: core_1.tif\n  next:  Draw one.'
        assert failure.event.error == 'NoRegions' && failure.log == ['a hint']
    }
}

tests['an image that failed is a failure of run, and an event of runEngine'] = {
    running('image_fails') { one, folder ->
        assert fails(Failure) { one.run(folder, quiet) }.what == 'There is no region.'
        def events = one.runEngine(['run', 'x', folder.path], quiet)
        assert events*.type == ['run_started', 'image_failed', 'run_finished']
    }
}

tests['a run without a score is told'] = {
    running('scores_nothing') { one, folder ->
        assert fails(Failure) { one.run(folder, quiet) }.what.contains('without a score')
    }
}

tests['a Python that cannot be started is told'] = {
    def one = FakeBridge.newInstance(new File(shared, 'names.json').path, shared, version)
    one.instead = []
    assert fails(Failure) { one.run(scratch, quiet) }.what.contains('could not be started')
}

tests['cancel lets the engine end by itself'] = {
    running('heeds_cancel') { one, folder ->
        boolean cancelled = false
        def listener = Bridge.listener(onEvent: { cancelled = it.type == 'progress' }, isCancelled: { cancelled })
        fails(Cancelled) { one.run(folder, listener) }
        assert new File(folder, 'ended').exists()
        assert !Thread.interrupted()
    }
}

tests['an engine that ignores cancel is ended by force, with its child'] = {
    running('ignores_cancel') { one, folder ->
        boolean cancelled = false
        def listener = Bridge.listener(onEvent: { cancelled = it.type == 'progress' }, isCancelled: { cancelled })
        fails(Cancelled) { one.run(folder, listener) }
        assert new File(folder, 'lasted').exists()
        assertAllEnded(folder)
    }
}

tests['Kill running script ends the engine; the thread stays interrupted'] = {
    running('heeds_cancel') { one, folder ->
        def thread = Thread.currentThread()
        def kill = { if (it.type == 'progress') { Thread.start { sleep 300; thread.interrupt() } } }
        fails(Cancelled) { one.run(folder, Bridge.listener(onEvent: kill)) }
        assert Thread.interrupted()
        assert new File(folder, 'ended').exists()
    }
}

tests['killed twice, the script does not wait'] = {
    running('ignores_cancel') { one, folder ->
        def thread = Thread.currentThread()
        def kill = { if (it.type == 'progress') { Thread.start { 2.times { sleep 300; thread.interrupt() } } } }
        fails(Cancelled) { one.run(folder, Bridge.listener(onEvent: kill)) }
        assert Thread.interrupted()
        assert !new File(folder, 'lasted').exists()
        while (!new File(folder, 'pids').text.tokenize().every { !isAlive(it as long) }) {
            sleep 50
        }
    }
}

tests['a listener that fails ends the engine'] = {
    running('heeds_cancel') { one, folder ->
        fails(ArithmeticException) { one.run(folder, Bridge.listener(onEvent: { 1.intdiv(0) })) }
        assert new File(folder, 'ended').exists()
    }
}

tests['an engine that has done its work and stays is ended, and the score stands'] = {
    running('will_not_end') { one, folder ->
        assert one.run(folder, quiet).score == '2+'
        assertAllEnded(folder)
    }
}

tests['the listener is called on the thread that runs the engine'] = {
    running('dies') { one, folder ->
        def threads = [] as Set
        def note = { threads << Thread.currentThread() }
        fails(Failure) { one.run(folder, Bridge.listener(onEvent: note, onLog: note, isCancelled: { note(); false })) }
        assert threads == [Thread.currentThread()] as Set
    }
}

// The words

def scored = { Map counts, Map more = [:] ->
    def all = ['0': 0, '1+': 0, '2+': 0, '3+': 0, normal: 7, noise: 5] + counts
    [score: '3+', status: 'Positive', counts: all, tumour_tiles: ['0', '1+', '2+', '3+'].sum { all[it] },
     review: [], corrected_tiles: 0] + more
}

tests['the sentence'] = {
    assert Bridge.sentence(scored('0': 122, '1+': 244, '2+': 170, '3+': 276)) ==
        'AI-assisted, research use only: 3+ 34 %, 2+ 21 %, 1+ 30 %, 0 15 % of 812 tumour tiles.'
    assert Bridge.sentence(scored('0': 12, [score: 'Not assessable'])) ==
        'AI-assisted, research use only: not assessable: too little tumour found (12 tumour tiles).'
}

[
    [0, 1000, '0 %'], [1, 1000, '<1 %'], [5, 1000, '1 %'], [94, 1000, '9 %'], [95, 1000, '9.5 %'],
    [999, 10_000, '9.9 %'], [100, 1000, '10 %'], [105, 1000, '11 %'], [994, 1000, '99 %'], [999, 1000, '>99 %'],
    [1000, 1000, '100 %'],
].each { part, whole, text ->
    tests["${part} of ${whole} is ${text}"] = {
        assert Bridge.sentence(scored('3+': part, '0': whole - part)).contains("3+ ${text}, 2+ 0 %")
    }
}

tests['the summary says first why to look'] = {
    def result = scored('0': 310, '3+': 90, [review: ['close to 10 %', 'noise'], corrected_tiles: 3])
    def lines = Bridge.summary(result).readLines()
    assert lines.take(3) == ['Please review:', '    close to 10 %', '    noise']
    assert lines.findIndexOf { it == 'Score 3+: Positive' } > 2
    assert '    3+: 90 (23 %)' in lines && 'Tiles that count as a person classed them: 3' in lines
    assert lines.any { it.startsWith('AI-assisted') }
    ['Negative show 0', 'not of cells'].each { said -> assert lines.any { it.contains(said) } }
}

tests['the summary of what cannot be assessed has no shares'] = {
    def text = Bridge.summary(scored('0': 12, [score: 'Not assessable', review: ['too little']]))
    assert text.contains('Score: Not assessable\n') && !text.contains('%')
    assert Bridge.summary(scored('3+': 100)).startsWith('No reason was found')
}

// The runner

def report = new PrintStream(System.out, true, 'UTF-8')
boolean allPassed = true
tests.findAll { name, test -> name ==~ args[4] }.each { name, test ->
    try {
        test()
        report.println "ok\t${name}"
    } catch (Throwable thrown) {
        allPassed = false
        def lines = thrown.stackTrace.findAll { it.fileName == 'SharedTests.groovy' }*.lineNumber
        report.println "failed\t${name}\t${"lines ${lines}: ${thrown}".inspect()}"
    }
}
System.exit(allPassed ? 0 : 1)
