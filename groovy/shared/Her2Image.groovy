/*
 * One image of QuPath's, for her2bridge: an ImageData becomes a request, an answer goes into the ImageData.
 *
 * QuPath's core classes only (no GUI), 0.5.1 to 0.7. Three rules: results go into the ImageData at hand and never round
 * it through its file; only objects that carry our mark are removed; nothing is saved.
 */

import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerBuilder
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass
import qupath.lib.plugins.workflow.DefaultScriptableWorkflowStep
import qupath.lib.projects.Project
import qupath.lib.projects.ProjectImageEntry
import qupath.lib.roi.interfaces.ROI

import java.nio.file.Files
import java.util.regex.Pattern

class Her2Image {

    /** Under this name our steps stand in an image's history. */
    static final String STEP = 'HER2 AI'

    /** What stands under `HER2 AI run`; the group: keys that somebody else had written, and that are not ours. */
    private static final Pattern STAMP =
        ~/[0-9a-f]{12} \| .* \| research use only \| .*?(?: \| not written: ([^{}]+))?/

    final Map names
    final Project project
    final ImageData imageData
    final ProjectImageEntry entry  // null where the image belongs to no project
    final Her2Tiles kind

    /** names: shared/names.json, parsed; project may be null. */
    Her2Image(Map names, Project project, ImageData imageData) {
        if (imageData == null) {
            throw new Her2Failure('No image is open.', 'QuPath', 'Open an image, and run the script again.')
        }
        this.names = names
        this.project = project
        this.imageData = imageData
        this.entry = project?.getEntry(imageData)
        this.kind = new Her2Tiles(names)
    }

    /** The image as it was saved. QuPath itself falls back to a backup, or to an empty image, without a word. */
    static Her2Image read(Map names, Project project, ProjectImageEntry entry) {
        def imageData
        try {
            imageData = entry.readImageData()
            imageData.server  // from 0.6 on it is opened only here, and QuPath throws RuntimeException itself
        } catch (IOException | RuntimeException unreadable) {  // groovylint-disable-line CatchRuntimeException
            throw new Her2Failure("The image cannot be opened: ${unreadable.message}", entry.imageName,
                'If the slide was moved, open the project in QuPath and tell it the new place; else try another copy.')
        }
        def saved = entry.entryPath.resolve('data.qpdata')
        if (Files.exists(saved) && saved.toString() != imageData.lastSavedPath) {
            throw new Her2Failure('The image\'s data file cannot be read.', saved.toString(),
                'Open the image in QuPath and look whether its annotations are there; data.qpdata.bkp may be older.')
        }
        new Her2Image(names, project, imageData)
    }

    /** Frees what read() opened. Before 0.6 an ImageData cannot be closed, its server can. */
    void close() {
        imageData instanceof AutoCloseable ? imageData.close() : imageData.server.close()
    }

    String getName() {
        entry?.imageName ?: imageData.server.metadata.name
    }

    Map<String, String> getMetadata() {
        entry == null ? [:] : new LinkedHashMap<String, String>(entry.metadataMap)
    }

    /** All annotations, depth first, in the project's order. */
    List<PathObject> getAnnotations() {
        flattened().findAll { it.isAnnotation() }
    }

    /** The annotations that are scored: of the classes asked for and those derived from them; Tumor where none is. */
    List<PathObject> regions(List<String> asked = null) {
        annotations.findAll { annotation ->
            String own = annotation.pathClass?.toString()?.toLowerCase()
            own != null && (asked ?: names.region_classes).any { String name ->
                String wanted = name.trim().toLowerCase()
                own == wanted || own.startsWith(wanted + Her2Tiles.BETWEEN_NAMES)
            }
        }
    }

    /** The regions that are selected, where they are some of them and not all; else none. */
    List<PathObject> selectedRegions(List<String> asked = null) {
        def all = regions(asked)
        def chosen = all.findAll { imageData.hierarchy.selectionModel.isSelected(it) }
        chosen.size() < all.size() ? chosen : []
    }

    /** Our tiles, wherever in the tree they are. */
    List<PathObject> getTiles() {
        imageData.hierarchy.tileObjects.findAll { kind.isOurs(it) }
    }

    /** Whether a person gave a tile another class. */
    boolean isCorrected(PathObject tile) {
        kind.isCorrected(tile)
    }

    /** The tiles that decide the score: those of tumour whose two likeliest tumour classes are closest, these first. */
    List<PathObject> doubtfulTiles(int count = 20) {
        def tumour = names.classes.findIndexValues { it.is_tumour }*.intValue()
        def margins = [:] as IdentityHashMap
        tiles.each { tile ->
            double[] p = kind.probabilities(tile)
            if (p.every { !Double.isNaN(it) } && tumour.contains(p.toList().indexOf(p.max()))) {
                def best = tumour.collect { p[it] }.sort().reverse()
                margins[tile] = best[0] - best[1]
            }
        }
        margins.keySet().sort { one, other -> margins[one] <=> margins[other] ?: one.ID <=> other.ID }.take(count)
    }

    /**
     * Have the image scored: request, engine, answer.
     *
     * bridge: a Her2Bridge; settings: for the engine; classes: the list of classes that the user sees; listener: of
     * the bridge's. Returns the event image_scored, and with it `new_classes`: PathClasses that the user's list lacks.
     */
    Map score(Object bridge, Map settings, Collection<PathClass> classes, Object listener, Closure isStill = { true }) {
        File folder = bridge.newRequest()
        try {
            writeRequest(bridge, folder, settings, classes)
            def before = regionState()
            Map scored = bridge.run(folder, listener)
            if (regionState() != before) {
                throw new Her2Failure('The annotations were changed while they were scored; nothing was written.', name,
                    'Run the script again, and leave the annotations alone until it is done.')
            }
            if (!isStill()) {
                throw new Her2Failure('The image was opened or closed while it was scored; nothing was written.', name,
                    'Run the script again, and leave the image where it is until it is done.')
            }
            Map update = bridge.update(folder)
            apply(kind.read(new File(folder, 'tiles.geojson')), update)
            return scored + [new_classes: Her2Tiles.missingClasses(update.path_classes, classes)]
        } finally {
            bridge.discard(folder)
        }
    }

    private void writeRequest(Object bridge, File folder, Map settings, Collection<PathClass> classes) {
        String server = GsonTools.instance.toJson(imageData.server.builder, ImageServerBuilder.ServerBuilder)
        bridge.writeImage(folder, [
            schema: 1,
            entry: entry?.ID ?: '',
            name: name,
            metadata: metadata,
            server: Her2Json.parse(server),
            path_classes: classes.findAll { it != PathClass.NULL_CLASS }
                .collect { [name: it.toString(), color: Her2Tiles.rgb(it)] },
            graded: gradedCentroids(),
            settings: settings,
        ])
        def drawn = annotations.findAll { it.hasROI() && !it.ROI.isEmpty() }  // the counting tool leaves empty points
        PathIO.exportObjectsAsGeoJSON(new File(folder, 'annotations.geojson'), drawn,
            PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        def ours = tiles
        bridge.writeTiles(folder, [
            ids: ours.collect { it.ID.toString() },
            runs: ours.collect { it.metadata[names.ownership_key] },
            classes: ours.collect { it.pathClass?.toString() },
            bounds: ours.collect { bounds(it.ROI) },
            measurements: names.classes*.probability.collectEntries { name ->
                [name, ours.collect { it.measurementList.get(name) }]
            },
        ])
    }

    private static List<Double> bounds(ROI roi) {
        [roi.boundsX, roi.boundsY, roi.boundsX + roi.boundsWidth, roi.boundsY + roi.boundsHeight]
    }

    private List gradedCentroids() {
        def graded = names.graded_last_names as Set
        imageData.hierarchy.detectionObjects.findAll { it.pathClass?.name in graded && !kind.isOurs(it) }
            .collect { [it.ROI.centroidX, it.ROI.centroidY] }
    }

    /** What must not change between request and answer. */
    private List regionState() {
        annotations.collect { [it.ID, System.identityHashCode(it.ROI), it.pathClass?.toString()] }
    }

    /** Put tiles, region measurements and metadata into the image: nothing of it, or all. */
    void apply(List<Map> fresh, Map update) {
        def byId = annotations.collectEntries { [it.ID.toString(), it] }
        def wanted = fresh*.parent + update.region_measurements.keySet()
        def lost = wanted.findAll { it != null && !byId.containsKey(it) }
        if (lost) {
            throw new Her2Failure('The regions of these results are not in this image.', name,
                "Look whether it is the right image; it lacks the annotation ${lost.first()}.")
        }
        def remove = update.remove as Set
        removeMarked(tiles.findAll { it.ID.toString() in remove })
        fresh.groupBy { it.parent }.each { parent, group ->
            (parent == null ? imageData.hierarchy.rootObject : byId[parent]).addChildObjects(group*.tile)
        }
        byId.each { id, annotation ->
            def values = update.region_measurements[id] ?: [:]
            removeMeasurements(annotation, update.measurement_names.findAll { !values.containsKey(it) })
            values.each { key, value -> annotation.measurementList.put(key, value as double) }
            annotation.measurementList.close()
        }
        update.metadata.each { key, value -> setMetadata(key, value) }
        imageData.hierarchy.fireHierarchyChangedEvent(this)
    }

    private void removeMarked(List<PathObject> old) {
        imageData.hierarchy.selectionModel.deselectObjects(old)
        imageData.hierarchy.removeObjects(old, true)  // true: what somebody put below one stays
    }

    private static void removeMeasurements(PathObject object, Collection<String> gone) {
        def there = gone.findAll { object.measurementList.containsKey(it) }
        if (there) {
            object.measurementList.removeMeasurements(there as String[])  // 0.5 takes this alone
        }
    }

    /** Lock or unlock annotations. */
    void lock(List<PathObject> some, boolean on) {
        some.each { it.locked = on }
        imageData.hierarchy.fireObjectsChangedEvent(this, some)
    }

    /** Set a key of the image's metadata in the project, in memory; null removes it. */
    void setMetadata(String key, String value) {
        if (entry != null) {
            value == null ? entry.removeMetadataValue(key) : entry.putMetadataValue(key, value)
        }
    }

    /** Depth first, without the root. */
    private List<PathObject> flattened(PathObject from = imageData.hierarchy.rootObject, List<PathObject> into = []) {
        from.childObjects.each { child ->
            into << child
            if (child.hasChildObjects()) {
                flattened(child, into)
            }
        }
        into
    }

    /**
     * Bring in a file's tiles; corrected tiles stay, and what the file has in their places does not come. The score on
     * show is not of these tiles, and goes. Returns how many came.
     */
    int importTiles(File file) {
        def fresh = kind.read(file)
        if (!fresh) {
            throw new Her2Failure('The file holds no tiles of her2bridge\'s.', file.toString(),
                'Take the file of  her2bridge analyze --output  or  her2bridge/results/<entry>.geojson.gz.')
        }
        def (kept, old) = tiles.split { isCorrected(it) }
        def taken = kept.collect { place(it) } as Set
        def wanted = fresh.findAll { !(place(it.tile) in taken) }
        apply(wanted, [
            remove: old*.ID*.toString(),
            region_measurements: [:],
            measurement_names: names.region_measurements.values(),
            metadata: ourKeys().collectEntries { [it, null] },
        ])
        wanted.size()
    }

    /** Write annotations and corrected tiles as GeoJSON. How many there were. */
    int exportLabels(File file) {
        def labels = annotations + tiles.findAll { isCorrected(it) }
        kind.write(file, labels)
        labels.size()
    }

    private static List place(PathObject tile) {
        [Math.round(tile.ROI.centroidX), Math.round(tile.ROI.centroidY)]
    }

    /** A step in the image's history; "Create script" makes of it the lines that do the same again. */
    void addStep(File script, List<String> arguments, Map<String, String> shown) {
        String given = arguments.collect { quoted(it) }.join(', ')
        String path = quoted(script.absolutePath)
        String code = "// ${STEP}: ${names.research_use_only}\n" +
            "new GroovyShell(getClass().classLoader, new Binding(binding.variables + [args: [${given}] as String[], " +
            "'qupath.script.file': ${path}])).evaluate(new File(${path}))"
        String title = "${STEP}: ${script.name - '.groovy'}"
        imageData.historyWorkflow.addStep(new DefaultScriptableWorkflowStep(title, new LinkedHashMap(shown), code))
    }

    private static String quoted(String text) {
        "'" + text.replace('\\', '\\\\').replace("'", "\\'").collectReplacements { char c ->
            c < (char) 32 || c > (char) 126 ? String.format('\\u%04X', (int) c) : null
        } + "'"
    }

    /** The keys of the image's metadata that a run of ours wrote; where its stamp is gone, none is known to be ours. */
    private List<String> ourKeys() {
        def there = metadata
        def stamp = STAMP.matcher(there[names.metadata.run] ?: '')
        def foreign = stamp.matches() ? (stamp.group(1) ?: '').split(', ') as Set : names.metadata.values() as Set
        names.metadata.values().findAll { there.containsKey(it) && !(it in foreign) }
    }

    /** What Clear results would remove: [tiles, corrected, suspects, keys, measured (annotations), steps]. */
    Map ours() {
        [
            tiles: tiles,
            corrected: tiles.count { isCorrected(it) },
            suspects: annotations.findAll { kind.isSuspect(it) },
            keys: ourKeys(),
            measured: annotations.findAll { one ->
                names.region_measurements.values().any { one.measurementList.containsKey(it) }
            },
            steps: imageData.historyWorkflow.steps.findAll { it.name.startsWith(STEP + ': ') },
        ]
    }

    /** Remove exactly what her2bridge wrote. Classes stay in the user's list: others may use them. */
    void clear(Map ours) {
        removeMarked(ours.tiles + ours.suspects)
        ours.measured.each { removeMeasurements(it, names.region_measurements.values()) }
        ours.keys.each { setMetadata(it, null) }
        imageData.historyWorkflow.removeSteps(ours.steps)
        imageData.hierarchy.fireHierarchyChangedEvent(this)
    }

}
