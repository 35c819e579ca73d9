/*
 * What all her2bridge's scripts begin with and do alike: bridge, settings, image, and whom to ask and tell (windows, or
 * the log).
 *
 * Knows QuPath only by what it is handed (its GUI may be null) and names none of its classes. It loads the other files.
 */

class Her2Script {

    private static final List<String> OWN_ARGUMENTS = ['file', 'output']

    final Object qupath      // QuPathGUI, or null
    final Object project     // may be null
    final Object imageData   // the script's; may be null
    final Object viewer      // the one that shows it; null headless and in "Run for project"
    final Object user        // Her2Windows or Her2Log
    final Object bridge
    final Map settings
    final File script        // this script's file; null where the editor's text was never saved

    private final Map<String, Class> classes
    private final Map variables
    private final List<String> arguments

    /**
     * Run a script's work so that whatever goes wrong ends in a message of three parts.
     *
     * given: python, shared, installed (the block that the installer wrote); binding, qupath, project, imageData.
     */
    static void run(Map given, Closure work) {
        def loader = new GroovyClassLoader(Her2Script.classLoader)
        def load = { String name ->
            loader.parseClass(new GroovyCodeSource(new File(given.shared, "${name}.groovy"), 'UTF-8'))
        }
        ['Her2Json', 'Her2Engine', 'Her2Words'].each(load)
        def classes = [bridge: load('Her2Bridge'), tiles: load('Her2Tiles'), image: load('Her2Image')]
        classes.failure = loader.loadClass('Her2Failure')
        classes.windows = given.qupath == null ? null : load('Her2Windows')
        def viewer = given.qupath?.allViewers?.find { given.imageData != null && given.imageData.is(it.imageData) }
        boolean seen = given.qupath != null && (viewer != null || given.imageData == null)
        def user = seen ? classes.windows.newInstance(given.qupath.stage) : load('Her2Log').newInstance()
        user.start {
            classes.bridge.guarded(user.&failed) {
                work(new Her2Script(given + [viewer: viewer, user: user, classes: classes]))
            }
        }
    }

    private Her2Script(Map given) {
        qupath = given.qupath
        project = given.project
        imageData = given.imageData
        viewer = given.viewer
        user = given.user
        classes = given.classes
        variables = given.binding.variables
        arguments = (variables['args'] ?: []) as List<String>
        script = variables['qupath.script.file'] ? new File(variables['qupath.script.file'] as String) : null
        bridge = classes.bridge.newInstance(given.python, new File(given.shared), given.installed)
        def others = arguments.findAll { !(it.tokenize('=')[0] in OWN_ARGUMENTS) }
        settings = bridge.settings(script?.absoluteFile?.parentFile, others)
    }

    Map getNames() {
        bridge.names
    }

    /** The script's image. */
    Object getImage() {
        imageOf(imageData)
    }

    private Object imageOf(Object data) {
        classes.image.newInstance(names, project, data)
    }

    /** The entries of the project, or a failure where none is open. */
    List getEntries() {
        if (project == null) {
            throw failure('No project is open.', 'QuPath', 'Open a project, and run the script again.')
        }
        project.imageList.toList()  // from 0.6 the list itself follows what is added and removed
    }

    RuntimeException failure(String what, String where, String nextStep) {
        classes.failure.newInstance(what, where, nextStep)
    }

    /** The value of an argument of the script's own, `key=value`; null where it was not given. */
    String argument(String key) {
        arguments.find { it.startsWith("${key}=") }?.substring(key.length() + 1)
    }

    /** Whether this is the first image of a batch: QuPath runs a script once for each. */
    boolean isFirst() {
        (variables['qupath.script.batchIndex'] ?: 0) == 0
    }

    /** A file beside the project's own, for what is neither asked for nor named. */
    File projectFile(String path) {
        entries
        new File(project.path.parent.toFile(), "her2bridge/${path}")
    }

    /** Run work on the thread that draws QuPath; at once where there is none. */
    void later(Closure work) {
        qupath == null ? work() : classes.windows.later(work)
    }

    /** Score the script's image and show what came out. more: further settings of the request. */
    void scoreAndShow(Map more) {
        def one = image
        askReader(one)
        def progress = user.progress("Scoring ${one.name}")
        Map scored
        try {
            scored = score(one, more, progress) { viewer == null || viewer.imageData.is(imageData) }
        } finally {
            progress.close()
        }
        syncProject()
        later { qupath?.refreshProject() }
        show(one, scored)
    }

    /** Blind mode: the reader's score, asked and kept before ours is made or shown. */
    private void askReader(Object image) {
        if (!settings.blind || viewer == null || image.metadata[names.reader_score]) {
            return  // a reading after ours was seen would not be blind
        }
        if (image.entry == null) {
            throw failure('Blind reading needs a project: your score could not be kept.', image.name,
                'Add the image to a project, or set blind = false.')
        }
        image.setMetadata(names.reader_score, user.readerScore(image.name))
    }

    /** Score one image; the result goes into its ImageData if that isStill where it was. Nothing is saved. */
    private Map score(Object image, Map more, Object progress, Closure isStill) {
        def shown = project?.pathClasses ?: qupath?.availablePathClasses ?: []
        Map scored = image.score(bridge, bridge.forEngine(settings) + more, shown, progress, isStill)
        addClasses(scored.new_classes)
        addStep(image, scored)
        if (settings.lock) {
            image.lock(image.regions(settings.region_classes), true)
        }
        scored
    }

    /** Classes that the user's list lacks come at its end; in the GUI QuPath itself hands them on to the project. */
    private void addClasses(List fresh) {
        if (fresh && qupath != null) {
            later { qupath.availablePathClasses.addAll(fresh) }
        } else if (fresh && project != null) {
            project.setPathClasses(project.pathClasses + fresh)
        }
    }

    private void addStep(Object image, Map scored) {
        if (script == null) {
            return
        }
        def given = settings.collect { key, value -> [key, value instanceof List ? value.join(',') : value].join('=') }
        def keys = names.metadata
        def told = [keys.score, keys.status, keys.model, keys.run]
        image.addStep(script, given, told.collectEntries { [it, scored.metadata[it] ?: ''] })
    }

    /** Headless with --save QuPath saves the image; before 0.6 it forgot the project, where the metadata are. */
    void syncProject() {
        if (variables['qupath.script.batchSave'] && project != null) {
            project.syncChanges()
        }
    }

    /** The result: reasons for a review first. Its options act on the viewer at once. */
    private void show(Object image, Map scored) {
        def overlay = viewer?.overlayOptions
        def regions = image.regions(settings.region_classes)
        def assessable = scored.score != names.not_assessable
        later {
            settings.fill == null ?: overlay?.setFillDetections(settings.fill)
            settings.opacity == null ?: overlay?.setOpacity(settings.opacity as float)
        }
        user.result(
            image: image.name,
            summary: bridge.summary(scored),
            sentence: bridge.sentence(scored),
            review: scored.review,
            headline: assessable ? "Score ${scored.score}: ${scored.status}" as String : scored.score,
            shares: assessable ? shares(scored) : [],
            details: details(image, scored, assessable),
            fill: settings.fill == null ? overlay?.fillDetections : settings.fill,
            opacity: settings.opacity == null ? overlay?.opacity : settings.opacity,
            locked: regions && regions.every { it.locked },
            onFill: { overlay?.setFillDetections(it) },
            onOpacity: { overlay?.setOpacity(it as float) },
            onLock: { on -> viewer?.imageData?.is(imageData) ? image.lock(regions, on) : null },
        )
    }

    /** The tumour tiles' shares, the strongest class first. */
    private List<Map> shares(Map scored) {
        names.classes.findAll { it.is_tumour }.reverse().collect {
            [label: it.label, color: it.color, percent: 100 * scored.counts[it.label] / scored.tumour_tiles]
        }
    }

    private List<String> details(Object image, Map scored, boolean assessable) {
        def counts = scored.counts
        def lines = ["${scored.tumour_tiles} tumour tiles, ${counts.normal} normal, ${counts.noise} noise"]
        if (assessable) {
            lines << "Tile H-score ${Math.round(scored.tile_h_score)} (no reporting criterion in gastric HER2)"
        }
        def whspn = scored.metadata[names.metadata.whspn]
        if (whspn) {
            lines << "Second network: ${whspn}"
        }
        if (scored.corrected_tiles) {
            lines << "${scored.corrected_tiles} tiles count as a person classed them"
        }
        if (image.entry == null) {
            lines << 'The image is in no project: its tiles are kept with it, and the score is not.'
        }
        def reader = image.metadata[names.reader_score]
        if (reader) {
            lines << "The reader said: ${reader}"
        }
        lines*.toString()
    }

    /** The viewer that shows an entry, or null. */
    Object viewerOf(Object entry) {
        qupath?.allViewers?.find { it.imageData != null && project.getEntry(it.imageData).is(entry) }
    }

    /**
     * Score entries one after the other and save each. One that is open is scored where it is open, so that nothing
     * must be loaded anew; the caller leaves out those with unsaved changes. A line of text for each.
     */
    List<String> scoreEach(List chosen, Object progress) {
        def lines = []
        for (int i = 0; i < chosen.size(); i++) {
            def entry = chosen[i]
            progress.image(entry.imageName, i, chosen.size())
            def failed = null
            def scored = bridge.guarded({ failed = it }) { scoreAndSave(entry, progress) }
            if (scored == null && failed == null) {
                lines << "cancelled: ${chosen.size() - i} images were not scored"
                break
            }
            lines << "${entry.imageName}: ${failed ? "FAILED. ${failed.what} ${failed.nextStep}" : inOneLine(scored)}"
        }
        lines*.toString()
    }

    private String inOneLine(Map scored) {
        settings.blind ? 'scored' : [scored.score, *scored.review].join('; ')
    }

    private Map scoreAndSave(Object entry, Object progress) {
        def open = viewerOf(entry)
        def one = open ? imageOf(open.imageData) : classes.image.read(names, project, entry)
        def before = one.metadata
        try {
            if (open && one.imageData.changed) {
                throw failure('The image was changed in QuPath meanwhile.', one.name, 'Save it, and score it again.')
            }
            Map scored = score(one, [:], progress) {
                def now = viewerOf(entry)
                open == null ? now == null : open.is(now) && open.imageData.is(one.imageData)
            }
            entry.saveImageData(one.imageData)
            project.syncChanges()
            return scored
        } catch (Exception failed) { // groovylint-disable-line CatchException
            // A score must not stand without its tiles.
            (one.metadata.keySet() + before.keySet()).each { one.setMetadata(it, before[it]) }
            throw failed
        } finally {
            open ?: one.close()
        }
    }

    /** What the score of each saved entry is worth now, in the project's order: the engine looks and writes nothing. */
    List<String> standings(Object progress) {
        def options = bridge.forEngine(settings).collectMany { key, value -> option(key, value) }
        def look = ['run', project.path.toString(), '--dry-run', '--json', '--backend', 'files'] + options
        def told = bridge.runEngine(look, progress)
        told.findAll { it.type in ['image_planned', 'image_skipped', 'image_failed'] }.collect {
            it.type == 'image_skipped' ? 'stands' : it.standing ?: it.what
        }
    }

    private static List<String> option(String key, Object value) {
        String name = '--' + key.replace('_classes', '_class').replace('_', '-')
        value instanceof Boolean ? (value ? [name] : []) : [value].flatten().collectMany { [name, it.toString()] }
    }

}
